/**
 * Where a tunnel keeps its session, for the process that continues it.
 *
 * The stored text does not contain the tunnel key; without the key its secret is useless.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SystemReason from "../core/SystemReason.js"

/** The stored session cannot be used. The session of this process is not kept, or begins anew. */
export class SessionStoreError extends Schema.TaggedError<SessionStoreError>()("SessionStoreError", {
  /** `lock`: another process keeps its session there. */
  operation: Schema.Literal("lock", "read", "write"),
  file: Schema.String,
  cause: Schema.Defect
}) {
  override get message(): string {
    const why = SystemReason.of(this.cause)
    switch (this.operation) {
      case "lock":
        return `cannot keep the session in ${this.file}: ${why}`
      case "read":
        return `cannot read the session from ${this.file}: ${why}`
      case "write":
        return `cannot write the session to ${this.file}: ${why}`
    }
  }
}

/** The stored session of one tunnel. Other users must not be able to read it. */
export interface Place {
  /** What the last process wrote; `None` when there is nothing. */
  readonly read: Effect.Effect<Option.Option<string>, SessionStoreError>
  /**
   * Replaces the text in one step: a process that ends in the middle leaves the previous one. `isDurable`: the text also
   * outlives the machine, once this has completed.
   */
  readonly write: (text: string, options: { readonly isDurable: boolean }) => Effect.Effect<void, SessionStoreError>
  readonly remove: Effect.Effect<void, SessionStoreError>
}

export interface Store {
  /**
   * The place of the tunnel of this name, for one process at a time, until the scope closes or the process ends, however it
   * ends. Fails with the operation `lock` while another process has it.
   */
  readonly open: (tunnel: string) => Effect.Effect<Place, SessionStoreError, Scope.Scope>
}

/** The store of this host, if it has one. */
export class SessionStore extends Context.Tag("nodepass/SessionStore")<
  SessionStore,
  { readonly store: Option.Option<Store> }
>() {}

/** Keeps nothing: a session ends with the process of either side. */
export const layerNone: Layer.Layer<SessionStore> = Layer.succeed(SessionStore, { store: Option.none() })
