/**
 * How long to wait before trying again: a `Schedule` that is impatient after a success and patient after failures.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Decision from "effect/ScheduleDecision"
import * as Interval from "effect/ScheduleInterval"

/** What the attempt that ended was like. */
export interface Ended {
  /** It had worked for a healthy while: the next attempt is made at once, and the waits start anew. */
  readonly healthy: boolean
  /** It had worked, if only for a moment: the waits start anew. */
  readonly worked: boolean
  /** The peer's machine answered and its program did not, so that it is likely on its way back: wait a third at most. */
  readonly refused: boolean
}

/** Waits that double from 100 ms up to `longest`, each drawn between its half and its whole. Yields each wait. */
export const schedule = (longest: Duration.Duration): Schedule.Schedule<Duration.Duration, Ended> =>
  Schedule.makeWithState(0, (now, ended: Ended, failures) =>
    Effect.map(Random.next, (chance) => {
      const most = Duration.toMillis(longest) / (ended.refused ? 3 : 1)
      const before = ended.worked ? 0 : failures
      const wait = ended.healthy ? 0 : Math.min(100 * 2 ** before, most) * (0.5 + chance / 2)
      return [
        ended.healthy ? 0 : Math.min(before + 1, 30),
        Duration.millis(wait),
        Decision.continueWith(Interval.after(now + wait))
      ] as const
    })
  )
