/**
 * Reads the messages of the attached control connection. It passes acknowledgements to the outbox and signals to the inbox, and
 * handles liveness and `Bye` itself.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { Refusals } from "../core/Refusals.js"
import { maxMessageBytes, type ReceivedLine } from "../wire/Dialect.js"
import * as Frame from "../wire/Frame.js"
import type * as Signal from "../wire/Signal.js"
import { type Attached, lose } from "./ControlConnection.js"
import type { Heartbeat } from "./Heartbeat.js"
import type { Inbox } from "./Inbox.js"
import type { Launches } from "./Launches.js"
import type { Outbox } from "./Outbox.js"
import { SignalCounts } from "./SignalCounts.js"
import { SignalFeed } from "./SignalFeed.js"

export interface Reader {
  /** Reads this connection until it is lost. */
  readonly run: (attached: Attached) => Effect.Effect<void>
}

export interface Options {
  readonly heartbeat: Heartbeat
  readonly inbox: Inbox
  readonly launches: Launches
  readonly outbox: Outbox
  /** Run when the peer ends the session. */
  readonly onBye: Effect.Effect<void>
  /** Milliseconds on a steady clock. */
  readonly now: () => number
}

/** A peer that keeps up acknowledges within a round trip and half a second. A slow one takes this long and a round trip. */
const slowMillis = 1000

export const make = ({
  heartbeat,
  inbox,
  launches,
  now,
  onBye,
  outbox
}: Options): Effect.Effect<Reader, never, Refusals | SignalCounts | SignalFeed> =>
  Effect.map(Effect.all([Refusals, SignalCounts, SignalFeed]), ([refusals, counts, feed]) => {
    const receive = (signal: Signal.Signal, number: number | undefined): Effect.Effect<void> => {
      switch (signal._tag) {
        case "Ping":
          return Effect.sync(() => outbox.putOnce("Pong"))
        case "Pong":
          return Effect.sync(heartbeat.pong)
        case "Ack":
        case "Rotation":
          return Effect.void
        case "Bye":
          return onBye
        case "Unknown":
          return Effect.annotateLogs(Effect.logDebug("ignored a signal of an unknown kind"), { kind: signal.kind })
        default:
          return inbox.put(signal, number)
      }
    }

    const receiveLine = (line: ReceivedLine, { control }: Attached): Effect.Effect<void> =>
      Effect.gen(function* () {
        if (line.acknowledged !== undefined) {
          outbox.acknowledge(line.acknowledged - 1, now() - slowMillis - heartbeat.leastRoundTrip())
          launches.admit()
        }
        counts.received += line.signals.length
        for (const [index, signal] of line.signals.entries()) {
          const number = line.number === undefined ? undefined : line.number + index
          if (number !== undefined && !inbox.isNew(number)) continue
          if (feed.isHeard()) {
            yield* feed.publish({
              _tag: "Signal",
              direction: "received",
              signal,
              number: Option.fromNullable(number),
              peer: control.connection.remote
            })
          }
          yield* receive(signal, number)
        }
      })

    const run = (attached: Attached): Effect.Effect<void> =>
      Effect.gen(function* () {
        const { connection, dialect } = attached.control
        const decoder = Frame.makeDecoder({ limit: maxMessageBytes })
        while (true) {
          const chunk = yield* Effect.option(connection.read)
          if (Option.isNone(chunk)) return lose(attached, "Reset")
          if (Option.isNone(chunk.value)) return lose(attached, "Ended")
          const messages = decoder.push(chunk.value.value)
          if (Either.isLeft(messages)) return lose(attached, "MessageTooLong")
          for (const message of messages.right) {
            if (attached.isLost) return
            const lines = dialect.decode(message)
            if (Either.isLeft(lines)) return lose(attached, "Tampered")
            heartbeat.received()
            for (const line of lines.right) {
              if (Either.isRight(line)) yield* receiveLine(line.right, attached)
              else yield* refusals.count("signal", line.left, { details: { peer: String(connection.remote) } })
            }
          }
        }
      })
    return { run }
  })
