/**
 * Periodic work of a session: it gives up launches that are due, resends, acknowledges, and judges the peer.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { Heartbeat } from "./Heartbeat.js"
import type { Inbox } from "./Inbox.js"
import type { Launches } from "./Launches.js"
import type { Outbox } from "./Outbox.js"

export interface Options {
  readonly heartbeat: Heartbeat
  readonly inbox: Inbox
  readonly launches: Launches
  readonly outbox: Outbox
  readonly isAttached: () => boolean
  /** Time between two pings. */
  readonly reportInterval: Duration.Duration
  /** Milliseconds on a steady clock. */
  readonly now: () => number
}

/** The longest time between two sweeps, and so the longest that an acknowledgement waits for a line to carry it. */
const maxMillis = 500
/** A signal is resent when it has not been acknowledged for this long and two round trips. */
const resendMillis = 2000

/** Sweeps until it is interrupted. */
export const run = (options: Options): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { heartbeat, inbox, isAttached, launches, now, outbox } = options
    const period = Math.min(maxMillis, Duration.toMillis(options.reportInterval) / 4)
    let last = now()

    const sweep = Effect.suspend(() => {
      const time = now()
      const late = time - last - period
      last = time
      if (late > period) heartbeat.excuse(late)
      outbox.expire(time)
      const trip = Option.match(heartbeat.roundTrip(), { onNone: () => 0, onSome: Duration.toMillis })
      if (isAttached()) outbox.resendBefore(time - resendMillis - 2 * trip)
      if (inbox.owesAcknowledgement()) outbox.putOnce("Ack")
      launches.admit()
      return Effect.zipRight(launches.report, heartbeat.judge)
    })
    return Effect.asVoid(Effect.repeat(sweep, Schedule.spaced(Duration.millis(period))))
  })
