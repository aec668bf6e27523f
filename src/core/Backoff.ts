/**
 * How long to wait before the next attempt: a `Schedule` with short delays after a success and growing ones after failures.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Decision from "effect/ScheduleDecision"
import * as Interval from "effect/ScheduleInterval"

/** How an attempt ended. */
export interface Ended {
  /** It worked for long enough: the next attempt follows at once, and the delays start at 100 ms again. */
  readonly healthy: boolean
  /** It worked, if only for a moment: the delays start at 100 ms again. */
  readonly worked: boolean
  /** The peer's machine refused the connection: its program is likely to restart soon, so a third of `maxDelay` is the limit. */
  readonly refused: boolean
}

/** Delays that double from 100 ms up to `maxDelay`, each drawn at random between half and all of that. Yields each delay. */
export const schedule = (maxDelay: Duration.Duration): Schedule.Schedule<Duration.Duration, Ended> =>
  Schedule.makeWithState(0, (now, ended: Ended, failures) =>
    Effect.map(Random.next, (chance) => {
      const limit = Duration.toMillis(maxDelay) / (ended.refused ? 3 : 1)
      const before = ended.worked ? 0 : failures
      const delay = ended.healthy ? 0 : Math.min(100 * 2 ** before, limit) * (0.5 + chance / 2)
      return [
        ended.healthy ? 0 : Math.min(before + 1, 30),
        Duration.millis(delay),
        Decision.continueWith(Interval.after(now + delay))
      ] as const
    })
  )
