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

/** What is kept of a session cannot be read, or not be written. The next session is a new one. */
export class SessionStoreError extends Schema.TaggedError<SessionStoreError>()("SessionStoreError", {
  operation: Schema.Literal("read", "write"),
  file: Schema.String,
  cause: Schema.Defect
}) {
  override get message(): string {
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `the session cannot be ${this.operation === "read" ? "read from" : "kept in"} ${this.file}: ${why}`
  }
}

const count = Schema.Int.pipe(Schema.nonNegative())
const nonce = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{32}$/))

/** A session between two processes of a server. */
export class StoredSession extends Schema.Class<StoredSession>("nodepass/SessionStore/StoredSession")({
  version: Schema.Literal(1),
  /** Milliseconds of the time of day. */
  at: Schema.Number,
  client: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/)),
  /** Its id, which is another one by another tunnel key. */
  session: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/)),
  nonces: Schema.Struct({ client: nonce, server: nonce }),
  /** As they were sent; under others nothing is gone on with. */
  terms: Schema.String,
  /** The number of the next signal, and the first that the client's next one may have. */
  next: count,
  expected: count,
  /** Signals that the client has not acknowledged, launches apart: their visitors end with the process. */
  outbox: Schema.Array(Schema.Struct({ text: Schema.String, number: Schema.NullOr(count) })),
  /** What the next id is made from, and the first number that a pool connection may bring. */
  ids: count,
  joins: count
}) {}

export const FromJson = Schema.parseJson(StoredSession)

/** Texts by the name of their tunnel, for this user only. */
export interface Place {
  /** What was kept, if anything; it is gone then, so that no second process finds it. */
  readonly take: (tunnel: string) => Effect.Effect<Option.Option<string>, SessionStoreError>
  readonly keep: (tunnel: string, text: string) => Effect.Effect<void, SessionStoreError>
}

export class SessionStore extends Context.Tag("nodepass/SessionStore")<
  SessionStore,
  { readonly place: Option.Option<Place> }
>() {}

/** A server that stops ends its session; the client begins a new one with the next process. */
export const layerNone: Layer.Layer<SessionStore> = Layer.succeed(SessionStore, { place: Option.none() })
