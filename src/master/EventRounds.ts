/**
 * Wakes the subscribers of a journal in rounds, a few at a time, so that a thousand of them delay no API call.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Event } from "./Instance.js"
import type { Journal } from "./Journal.js"

/** Why a subscriber was woken: there is something to do, or there were no events for 15 s. */
export type Wake = "events" | "silence"

export interface EventRounds {
  /** Whether a subscriber may read the event of this number now; events after the last round wait for the next one. */
  readonly isReleased: (number: number) => boolean
  /** Waits for the next round. */
  readonly next: Effect.Effect<Wake>
  /** Wakes all subscribers that wait now, in batches. */
  readonly wakeAll: (reason: Wake) => Effect.Effect<void>
  /** Runs the rounds until the journal is closed. */
  readonly run: Effect.Effect<void>
}

export const make = (events: Journal<Event>): Effect.Effect<EventRounds> =>
  Effect.gen(function* () {
    const waiting = new Set<(reason: Wake) => void>()
    let released = yield* events.next
    let ended = false

    const wakeAll = (reason: Wake) =>
      Effect.gen(function* () {
        // A copy: a subscriber that waits again during this round waits for the next one.
        for (const [index, resume] of Array.from(waiting).entries()) {
          if (waiting.delete(resume)) resume(reason)
          if (index % batchSize === batchSize - 1) yield* Effect.sleep(batchPause)
        }
      })

    return {
      isReleased: (number) => ended || number < released,
      next: Effect.async<Wake>((resume) => {
        const wake = (reason: Wake) => resume(Effect.succeed(reason))
        waiting.add(wake)
        return Effect.sync(() => waiting.delete(wake))
      }),
      wakeAll,
      run: Effect.gen(function* () {
        while (true) {
          const read = yield* Effect.timeoutOption(events.read(released, 1), maxSilence)
          if (Option.isNone(read)) {
            yield* wakeAll("silence")
            continue
          }
          if (Option.isNone(read.value)) break
          const count = waiting.size
          released = yield* events.next
          const [duration] = yield* Effect.timed(wakeAll("events"))
          // Collects events for the next round. Rounds take at most half of the time.
          if (count > maxImmediate) {
            yield* Effect.sleep(Duration.max(Duration.millis(Math.min(count / 4, 250)), duration))
          }
        }
        ended = true
        yield* wakeAll("events")
      })
    }
  })

// internal

/** Up to this many subscribers, the next round follows at once. */
const maxImmediate = 64
/** Subscribers woken without a pause: 16 take less than 3 ms. */
const batchSize = 16
const batchPause = "1 millis"
const maxSilence = "15 seconds"
