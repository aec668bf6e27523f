/**
 * Whether the store works: the outcome of the last operation.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { StoreError } from "./InstanceStore.js"

export interface StoreHealth {
  /** Runs an operation of the store and records its outcome. Logs each change between working and failing. */
  readonly track: <A>(operation: Effect.Effect<A, StoreError>) => Effect.Effect<A, StoreError>
  /** The error of the last operation; `None` when it succeeded. */
  readonly problem: Effect.Effect<Option.Option<string>>
}

export const make = (): StoreHealth => {
  let problem = Option.none<string>()
  return {
    track: (operation) =>
      Effect.tapBoth(operation, {
        onFailure: ({ message }) =>
          Effect.suspend(() => {
            const isKnown = Option.contains(problem, message)
            problem = Option.some(message)
            return isKnown
              ? Effect.void
              : Effect.logError(`${message}; changes are refused until the store works again`)
          }),
        onSuccess: () =>
          Effect.suspend(() => {
            const hadProblem = Option.isSome(problem)
            problem = Option.none()
            return hadProblem ? Effect.logInfo("the store works again; changes are accepted") : Effect.void
          })
      }),
    problem: Effect.sync(() => problem)
  }
}
