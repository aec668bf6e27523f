/**
 * Waits that may not last for ever, so cheap that every connection can have several: those that may last equally long
 * stand in one row, the earliest first, and one fiber for the row sleeps until that one is due.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

export interface Limit<E> {
  readonly duration: Duration.Duration
  readonly onTimeout: () => E
}

export class Deadlines extends Context.Tag("nodepass/Deadlines")<
  Deadlines,
  {
    /** Runs the effect once that much time has passed, unless what this answers is called before. Takes a microsecond. */
    readonly after: (duration: Duration.Duration, expire: Effect.Effect<void>) => () => void
    /** The same as `Effect.timeoutFail`, by one fiber instead of two, and no timer: a third of its 25 µs. */
    readonly limit: <A, E, E2, R>(self: Effect.Effect<A, E, R>, options: Limit<E2>) => Effect.Effect<A, E | E2, R>
  }
>() {}

export const make: Effect.Effect<Deadlines["Type"], never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Effect.clock
  const run = yield* FiberSet.makeRuntime()
  const rows = new Map<number, Set<Wait>>()

  const serve = (millis: number, row: Set<Wait>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const [first] = row
      if (first === undefined) {
        rows.delete(millis)
        return Effect.void
      }
      const left = first.due - clock.unsafeCurrentTimeMillis()
      if (left > shortest) return Effect.zipRight(Effect.sleep(left), serve(millis, row))
      row.delete(first)
      run(first.expire)
      return serve(millis, row)
    })

  const after: Deadlines["Type"]["after"] = (duration, expire) => {
    const millis = Duration.toMillis(duration)
    const wait: Wait = { due: clock.unsafeCurrentTimeMillis() + millis, expire }
    const row = rows.get(millis)
    if (row !== undefined) {
      row.add(wait)
      return () => row.delete(wait)
    }
    const begun = new Set([wait])
    rows.set(millis, begun)
    run(serve(millis, begun))
    return () => begun.delete(wait)
  }

  return Deadlines.of({
    after,
    limit: <A, E, E2, R>(self: Effect.Effect<A, E, R>, { duration, onTimeout }: Limit<E2>) =>
      Effect.uninterruptibleMask((restore) =>
        // As an exit, or what fails here would be logged as nobody's failure.
        Effect.flatMap(Effect.forkDaemon(Effect.exit(Effect.interruptible(self))), (fiber) => {
          let late = false
          const expire = Effect.sync(() => {
            late = true
            fiber.unsafeInterruptAsFork(fiber.id())
          })
          const settle = after(duration, expire)
          const ended = Effect.async<Exit.Exit<Exit.Exit<A, E>>>((resume) =>
            fiber.addObserver((exit) => resume(Effect.succeed(exit)))
          )
          return Effect.flatMap(
            Effect.onExit(restore(ended), (exit) => {
              settle()
              return Exit.isFailure(exit) ? Fiber.interrupt(fiber) : Effect.void
            }),
            (ended): Effect.Effect<A, E | E2> => {
              const exit = Exit.flatten(ended)
              return late && Exit.isInterrupted(exit) ? Effect.fail(onTimeout()) : exit
            }
          )
        })
      )
  })
})

export const layer: Layer.Layer<Deadlines> = Layer.scoped(Deadlines, make)

// internal

interface Wait {
  /** Milliseconds of the Clock. */
  readonly due: number
  readonly expire: Effect.Effect<void>
}

/** The clock counts whole nanoseconds, and sums of fractions of a millisecond miss by less. */
const shortest = 1e-6
