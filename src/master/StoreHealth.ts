/**
 * Whether the store works, by the outcome of the last operations. A store that can be read may still refuse every change, as
 * on a full disk: after a change that failed, only another change shows that it works again.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { StoreError } from "./InstanceStore.js"

export interface StoreHealth {
  /** Runs a change of the store and records its outcome. Logs each change between working and failing. */
  readonly track: <A>(change: Effect.Effect<A, StoreError>) => Effect.Effect<A, StoreError>
  /** Runs a change of a few bytes. On a full disk they may still fit: its success does not end a problem. */
  readonly trackMinor: <A>(change: Effect.Effect<A, StoreError>) => Effect.Effect<A, StoreError>
  /** Runs an operation that only reads. Its success does not end a problem that a change had. */
  readonly trackRead: <A>(operation: Effect.Effect<A, StoreError>) => Effect.Effect<A, StoreError>
  /** Makes this change while the last one has failed, to test whether the store works again. */
  readonly probe: (change: Effect.Effect<unknown, StoreError>) => Effect.Effect<void>
  /** Why the store does not work; `None` when it does. */
  readonly problem: Effect.Effect<Option.Option<string>>
}

export const make = (): StoreHealth => {
  let problem = Option.none<string>()
  let isUnwritable = false
  const record =
    (operation: "read" | "minor" | "write") =>
    <A>(self: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> =>
      Effect.tapBoth(self, {
        onFailure: ({ message }) =>
          Effect.suspend(() => {
            const isKnown = Option.contains(problem, message)
            problem = Option.some(message)
            if (operation !== "read") isUnwritable = true
            return isKnown
              ? Effect.void
              : Effect.logError(`${message}; changes are refused until the store works again`)
          }),
        onSuccess: () =>
          Effect.suspend(() => {
            if (operation !== "write" && isUnwritable) return Effect.void
            isUnwritable = false
            const hadProblem = Option.isSome(problem)
            problem = Option.none()
            return hadProblem ? Effect.logInfo("the store works again; changes are accepted") : Effect.void
          })
      })
  return {
    track: record("write"),
    trackMinor: record("minor"),
    trackRead: record("read"),
    probe: (change) => Effect.ignore(Effect.suspend(() => (isUnwritable ? record("write")(change) : Effect.void))),
    problem: Effect.sync(() => problem)
  }
}
