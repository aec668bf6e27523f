/**
 * Where a server that stops stores its session, for the server process that starts next.
 *
 * The stored text does not contain the tunnel key; without the key its nonces are useless.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SystemReason from "../core/SystemReason.js"

/** The stored session cannot be read, or the session cannot be stored. The next session is a new one. */
export class SessionStoreError extends Schema.TaggedError<SessionStoreError>()("SessionStoreError", {
  operation: Schema.Literal("read", "write"),
  file: Schema.String,
  cause: Schema.Defect
}) {
  override get message(): string {
    const why = SystemReason.of(this.cause)
    return `cannot ${this.operation} the session ${this.operation === "read" ? "from" : "to"} ${this.file}: ${why}`
  }
}

/** Texts by the name of their tunnel, which other users must not be able to read. */
export interface Store {
  /** Reads the text and removes it, so that no second process finds it. */
  readonly take: (tunnel: string) => Effect.Effect<Option.Option<string>, SessionStoreError>
  readonly put: (tunnel: string, text: string) => Effect.Effect<void, SessionStoreError>
}

/** The store of this host, if it has one. */
export class SessionStore extends Context.Tag("nodepass/SessionStore")<
  SessionStore,
  { readonly store: Option.Option<Store> }
>() {}

/** Stores nothing: a server that stops ends its session, and the client begins a new one with the next process. */
export const layerNone: Layer.Layer<SessionStore> = Layer.succeed(SessionStore, { store: Option.none() })
