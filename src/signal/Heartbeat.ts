/**
 * Pings, the round trip that their answers show, and the judgement on a peer that sends nothing.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import { type Attached, lose } from "./ControlConnection.js"
import * as Liveness from "./Liveness.js"
import type { Outbox } from "./Outbox.js"

export interface Heartbeat {
  /** Judges the peer by this control connection from now on. */
  readonly start: (attached: Attached) => void
  readonly ping: Effect.Effect<void>
  /** The peer sent something. */
  readonly received: () => void
  /** The peer answered the ping. */
  readonly pong: () => void
  /** Judges the peer, logs a change, and closes the connection to a peer that is lost. */
  readonly judge: Effect.Effect<void>
  /** Does not count this time as silence of the peer: this process was stopped or busy. */
  readonly excuse: (millis: number) => void
  /** The duration of the last ping, or `None` before the first answer. */
  readonly roundTrip: () => Option.Option<Duration.Duration>
  /** Milliseconds of the shortest ping on this control connection: without what waited before it. `0` before the first answer. */
  readonly leastRoundTrip: () => number
  /** Pings the peer, and returns whether it sent anything within that time. */
  readonly probe: (within: Duration.DurationInput) => Effect.Effect<boolean>
}

export interface Options {
  readonly outbox: Outbox
  /** Time between two pings. */
  readonly interval: Duration.Duration
  /** Milliseconds on a steady clock. */
  readonly now: () => number
}

export const make = ({ interval, now, outbox }: Options): Heartbeat => {
  let watched: Watched | undefined
  let pingSent = 0
  let roundTrip = Option.none<Duration.Duration>()
  let least = Infinity
  let nextLine: Deferred.Deferred<void> | undefined

  const ping = Effect.sync(() => {
    pingSent = now()
    outbox.putOnce("Ping")
  })

  const judge = Effect.suspend(() => {
    if (watched === undefined || watched.attached.isLost) return Effect.void
    const { attached, liveness, state } = watched
    const time = now()
    const judged = liveness.state(time)
    if (judged === state) return Effect.void
    watched = { attached, liveness, state: judged }
    const details = {
      peer: String(attached.control.connection.remote),
      silent: `${Math.round(liveness.silence(time))}ms`,
      phi: liveness.phi(time).toFixed(1)
    }
    switch (judged) {
      case "alive":
        return Effect.annotateLogs(Effect.logInfo("the peer answers again"), details)
      case "suspect":
        return Effect.annotateLogs(Effect.logInfo("the peer is silent for longer than usual"), details)
      case "lost":
        return Effect.sync(() => lose(attached, "Silent"))
    }
  })

  return {
    start: (attached) => {
      const liveness = Liveness.make({ interval: Duration.toMillis(interval), now: now() })
      watched = { attached, liveness, state: "alive" }
      least = Infinity
    },
    ping,
    received: () => {
      watched?.liveness.received(now())
      if (nextLine === undefined) return
      Deferred.unsafeDone(nextLine, Effect.void)
      nextLine = undefined
    },
    pong: () => {
      const time = now()
      watched?.liveness.pong(time)
      roundTrip = Option.some(Duration.millis(time - pingSent))
      least = Math.min(least, time - pingSent)
    },
    judge,
    excuse: (millis) => watched?.liveness.excuse(millis),
    roundTrip: () => roundTrip,
    leastRoundTrip: () => (least === Infinity ? 0 : least),
    probe: (within) =>
      Effect.suspend(() => {
        // Before the ping, or the answer could come first.
        const answer = (nextLine ??= Deferred.unsafeMake<void>(FiberId.none))
        return Effect.timeoutTo(Effect.zipRight(ping, Deferred.await(answer)), {
          duration: within,
          onSuccess: () => true,
          onTimeout: () => false
        })
      })
  }
}

// internal

interface Watched {
  readonly attached: Attached
  readonly liveness: Liveness.Liveness
  /** The last judgement. */
  readonly state: Liveness.State
}
