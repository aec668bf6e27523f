/**
 * Writes batches of the outbox to the attached control connection, and rotates the key that seals them.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { EventBus } from "../core/EventBus.js"
import type { TransportError } from "../transport/Transport.js"
import type { Numbered } from "../wire/Dialect.js"
import { type Attached, lose } from "./ControlConnection.js"
import type { Inbox } from "./Inbox.js"
import type { Outbox } from "./Outbox.js"
import { SignalCounts } from "./SignalCounts.js"
import { SignalFeed } from "./SignalFeed.js"

export interface Writer {
  /** Writes to this connection until it is lost. Never completes. */
  readonly run: (attached: Attached) => Effect.Effect<void>
}

export interface Options {
  readonly inbox: Inbox
  readonly outbox: Outbox
  readonly keyLifetime: Duration.Duration
  /** Completed when `Bye` is written and the connection half-closed. */
  readonly farewell: Deferred.Deferred<void>
  /** Milliseconds on a steady clock. */
  readonly now: () => number
}

/** Signals sealed with one key, at most, and up to a batch more. */
const maxPerKey = 65_536

export const make = ({
  farewell,
  inbox,
  keyLifetime,
  now,
  outbox
}: Options): Effect.Effect<Writer, never, EventBus | SignalCounts | SignalFeed> =>
  Effect.map(Effect.all([EventBus, SignalCounts, SignalFeed]), ([events, counts, feed]) => {
    const lifetime = Duration.toMillis(keyLifetime)
    /** The highest number sent so far: a signal that does not exceed it is sent again. */
    let highest = -1
    const count = (signals: ReadonlyArray<Numbered>) => {
      counts.sent += signals.length
      for (const { number } of signals) {
        if (number === undefined) continue
        if (number > highest) highest = number
        else counts.resent++
      }
    }
    const published = events.publish(() => ({ _tag: "Rotated", keys: "session" }))

    const show = (signals: ReadonlyArray<Numbered>, { control }: Attached) =>
      Effect.forEach(
        signals,
        ({ number, signal }) =>
          feed.publish({
            _tag: "Signal",
            direction: "sent",
            signal,
            number: Option.fromNullable(number),
            peer: control.connection.remote
          }),
        { discard: true }
      )

    const run = (attached: Attached): Effect.Effect<void> => {
      const { connection, dialect } = attached.control
      let key = { since: now(), signals: 0 }
      const step: Effect.Effect<void, TransportError> = Effect.suspend(() => {
        // An acknowledgement or signal taken now would be missing from the connection that replaced this one.
        if (attached.isLost) return Effect.never
        const time = now()
        if (time - key.since >= lifetime || key.signals >= maxPerKey) {
          key = { since: time, signals: 0 }
          return Effect.zipRight(connection.write(dialect.rotate()), published)
        }
        const signals = outbox.take(time)
        if (signals.length === 0) return outbox.ready
        key.signals += signals.length
        count(signals)
        const write = connection.write(dialect.encode({ signals, acknowledged: inbox.acknowledge() }))
        const written = feed.isHeard() ? Effect.zipRight(write, show(signals, attached)) : write
        return signals.at(-1)?.signal._tag === "Bye"
          ? Effect.zipRight(Effect.zipRight(written, connection.end), Deferred.succeed(farewell, undefined))
          : written
      })
      return Effect.catchAll(Effect.forever(step), () => Effect.sync(() => lose(attached, "Reset")))
    }
    return { run }
  })
