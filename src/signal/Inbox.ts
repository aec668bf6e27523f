/**
 * The signals of the peer: each number is handled once, in order of arrival, and then acknowledged.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as ReplayWindow from "../wire/ReplayWindow.js"
import type * as Signal from "../wire/Signal.js"
import type { Outbox } from "./Outbox.js"

/** A signal for the session. The bus handles the others itself. */
export type Delivered = Extract<
  Signal.Signal,
  | Signal.Carry
  | Signal.Demand
  | Signal.Flush
  | Signal.Keep
  | Signal.Launch
  | Signal.Refused
  | Signal.Silent
  | Signal.Targets
  | Signal.Terms
  | Signal.Withdrawn
>

export interface Inbox {
  /** Whether the number was not received before. A repeated one is acknowledged again: the peer may have missed that. */
  readonly isNew: (number: number) => boolean
  /** Queues a signal for its handler. Waits while the queue is full, so that TCP slows the peer down. */
  readonly put: (signal: Delivered, number: number | undefined) => Effect.Effect<void>
  /** Handles the queued signals, one at a time. */
  readonly run: <R>(handler: (signal: Delivered) => Effect.Effect<void, never, R>) => Effect.Effect<never, never, R>
  /** The highest number that was handled, `-1` before the first. */
  readonly received: () => number
  /** Whether a handled number is not acknowledged yet. */
  readonly owesAcknowledgement: () => boolean
  /** What to write as acknowledgement: every number below it was handled. `undefined` when that was written already. */
  readonly acknowledge: () => number | undefined
}

export interface Options {
  /** Signals that wait for their handler, at most. */
  readonly capacity: number
  /** The highest number that was handled before. Defaults to none, `-1`. */
  readonly received?: number | undefined
  /** Sends an `Ack` when no other line carries the acknowledgement soon. */
  readonly outbox: Outbox
  /** Called when another number was handled. */
  readonly onChange?: (() => void) | undefined
}

/** Signals handled before an acknowledgement is sent in a line of its own. */
const maxUnacknowledged = 64

export const make = (options: Options): Effect.Effect<Inbox, never, Scope.Scope> =>
  Effect.gen(function* () {
    const queue = yield* Effect.acquireRelease(Queue.bounded<Arrived>(options.capacity), Queue.shutdown)
    let received = options.received ?? -1
    let acknowledged = received
    const isNew = ReplayWindow.make(received + 1)

    // Not before it is handled: the peer refuses the launches that wait here when the session ends.
    const onHandled = (number: number | undefined) => {
      if (number !== undefined && number > received) {
        received = number
        options.onChange?.()
      }
      if (received - acknowledged >= maxUnacknowledged) options.outbox.putOnce("Ack")
    }

    return {
      isNew: (number) => {
        if (isNew(number)) return true
        acknowledged = Math.min(acknowledged, received - 1)
        return false
      },
      put: (signal, number) => Effect.asVoid(Queue.offer(queue, { signal, number })),
      run: (handler) =>
        Effect.forever(
          Effect.flatMap(Queue.take(queue), ({ number, signal }) =>
            Effect.map(handler(signal), () => onHandled(number))
          )
        ),
      received: () => received,
      owesAcknowledgement: () => received !== acknowledged,
      acknowledge: () => {
        if (received === acknowledged) return undefined
        acknowledged = received
        return received + 1
      }
    }
  })

// internal

interface Arrived {
  readonly signal: Delivered
  readonly number: number | undefined
}
