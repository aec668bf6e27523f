/**
 * Owns the streams of a tunnel's sessions, and their carriers. Visitors on streams outlive their session, and may finish when
 * the tunnel stops.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"

/** What the service has to know of the streams of a session. */
export interface Registered {
  /** Whether all that was sent has arrived, so that nothing is lost when the carriers end. */
  readonly isSettled: () => boolean
  /** Ends the carriers. Streams that are not over are reset. */
  readonly end: () => void
}

export class Streams extends Context.Tag("nodepass/Streams")<
  Streams,
  {
    /** Owns the connections of carriers, and the fibers that serve them. */
    readonly scope: Scope.Scope
    /** Adds the streams of a session. Call the returned function once they have ended. */
    readonly register: (streams: Registered) => () => void
  }
>() {}

/** Ends all carriers when its scope closes, once what was sent has arrived, or after two seconds. */
export const layer: Layer.Layer<Streams> = Layer.scoped(
  Streams,
  Effect.gen(function* () {
    const sessions = new Set<Registered>()
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const isSettled = Effect.sync(() => [...sessions].every((streams) => streams.isSettled()))
    const settled = Effect.repeat(Effect.zipLeft(isSettled, Effect.sleep(pollInterval)), { until: (isDone) => isDone })
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(isSettled, (isDone) =>
        // Finalizers are uninterruptible: the timeout could not end the wait.
        isDone ? Effect.void : Effect.timeoutOption(Effect.interruptible(settled), settleTimeout)
      ).pipe(
        Effect.zipRight(
          Effect.sync(() => {
            for (const streams of sessions) streams.end()
          })
        )
      )
    )
    return {
      scope,
      register: (streams) => {
        sessions.add(streams)
        return () => void sessions.delete(streams)
      }
    }
  })
)

// internal

const pollInterval = Duration.millis(20)
const settleTimeout = Duration.seconds(2)
