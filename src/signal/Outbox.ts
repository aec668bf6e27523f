/**
 * The signals of one side that wait to be sent, or to be acknowledged, in the order in which they are sent: liveness, then
 * resends, then the state of the pool, then launches in order of arrival.
 *
 * Source: docs/protocol.md §Signals.
 */
import { constVoid } from "effect/Function"
import * as Effect from "effect/Effect"
import type { Numbered } from "../wire/Dialect.js"
import * as Signal from "../wire/Signal.js"

/** A signal that stays in the outbox until the peer has acknowledged it. */
export type Lasting = State | Signal.Launch | Notice

/** The state of the pool and of the targets: a newer signal of a kind replaces an older one. */
export type State = Signal.Demand | Signal.Flush | Signal.Keep | Signal.Targets

/** What becomes of a launch, or of a pool connection. It is sent behind the launches. */
export type Notice = Signal.Carry | Signal.Silent | Signal.Withdrawn | Signal.Refused

/** A signal that is sent once, with no number, and not acknowledged. */
export type Once = "Ping" | "Pong" | "Ack" | "Bye"

/**
 * Why a launch was given up. `Late`: it was not acknowledged in time. `Over`: the session ended. `Restarted`: another process
 * continues the session on the other side.
 */
export type GivenUp = "Late" | "Over" | "Restarted"

/** A signal that the peer has not acknowledged yet. */
export interface PendingSignal {
  readonly signal: Lasting
  /** When it is given up, on the clock of `take`; `Infinity` for a signal that is not a launch. */
  readonly due: number
  /** Called when it is given up. It is not sent any more. */
  readonly giveUp: (why: GivenUp) => void
  /** Set when it is first sent, and kept when it is resent. */
  number: number | undefined
  /** When it was last sent. */
  sentAt: number
}

export interface Outbox {
  /** Completes once there may be a batch to take. */
  readonly ready: Effect.Effect<void>
  /** Whether another launch fits in. */
  readonly hasRoom: () => boolean
  /** Launches and signals that are not acknowledged, and those that were not sent yet. */
  readonly size: () => number
  /** Sends the signal with the next batch, once however often it is put. */
  readonly putOnce: (kind: Once) => void
  /** Replaces a state of the same kind that was not sent yet. */
  readonly put: (signal: State | Notice) => void
  readonly launch: (signal: Signal.Launch, options: Pick<PendingSignal, "due" | "giveUp">) => PendingSignal
  /** Removes a launch whose visitor has left: it is not resent, and not given up. */
  readonly withdraw: (pending: PendingSignal) => void
  /** The next batch, empty when there is nothing to send. */
  readonly take: (now: number) => ReadonlyArray<Numbered>
  /** Removes what the peer has acknowledged: every number up to this one. It is slow if that was sent before `since`. */
  readonly acknowledge: (number: number, since?: number) => void
  /** Resends everything that is not acknowledged: there is a new control connection. */
  readonly resendAll: () => void
  /** Resends the oldest signals that were last sent before `time`. */
  readonly resendBefore: (time: number) => void
  /** Gives up the launches that are due. */
  readonly expire: (now: number) => void
  /** Gives up every launch that was not sent, and with `sent` also those that were. */
  readonly close: (options: { readonly sent: boolean }) => void
  /**
   * The peer's pool connections have ended with its process: gives up every launch, and drops every signal about one of them.
   * What remains is sent to the process that continues the session.
   */
  readonly dropConnections: () => void
  /** Gives no number from this one on to a signal until it is called again. Before the first call every number may be used. */
  readonly reserve: (limit: number) => void
  /** What an outbox needs that continues in place of this one. */
  readonly snapshot: () => Snapshot
}

export interface Snapshot {
  /** The number of the next signal. */
  readonly next: number
  readonly signals: ReadonlyArray<Numbered>
}

export interface Options {
  /** Launches kept at most. */
  readonly limit: number
  /** Where to continue. Defaults to an empty outbox whose first number is `0`. */
  readonly snapshot?: Snapshot | undefined
  /** Called when the snapshot is another. */
  readonly onChange?: (() => void) | undefined
}

/** Signals in a batch, at most: some kilobytes, so that a ping never waits for much. */
export const maxBatch = 128
/** Signals sent and not acknowledged, at most: they are ahead of a ping on a connection that hardly moves. */
export const maxInFlight = 1024

/**
 * Batches that a slow peer has not acknowledged, at most, unless they are full. A peer that needs its time for each batch, and
 * not for each signal, would otherwise get more and more small ones.
 */
export const maxForSlowPeer = 8

export const make = ({ limit, onChange = constVoid, snapshot }: Options): Outbox => {
  const ready = Effect.unsafeMakeLatch(false)
  const once = new Set<Once>()
  const states = new Map<Lasting["_tag"], PendingSignal>()
  const unsent = new Set<PendingSignal>()
  // In the order of their numbers: an acknowledgement removes a prefix.
  const sent = new Set<PendingSignal>()
  const resends = new Set<PendingSignal>()
  let next = snapshot?.next ?? 0
  /** Batches of new signals on this control connection that are not acknowledged. */
  let batches: Array<Batch> = []
  let isSlow = false
  let reserved = Infinity

  const put = (signal: State | Notice) => {
    const pending: PendingSignal = { signal, due: Infinity, giveUp: constVoid, number: undefined, sentAt: 0 }
    if (isState(signal)) states.set(signal._tag, pending)
    else unsent.add(pending)
    ready.unsafeOpen()
    onChange()
  }
  for (const { number, signal } of snapshot?.signals ?? []) {
    if (!isState(signal)) continue
    if (number === undefined) put(signal)
    else sent.add({ signal, due: Infinity, giveUp: constVoid, number, sentAt: 0 })
  }

  const remove = (pending: PendingSignal) => {
    unsent.delete(pending)
    sent.delete(pending)
    resends.delete(pending)
  }
  const giveUp = (pending: PendingSignal, why: GivenUp) => {
    remove(pending)
    pending.giveUp(why)
  }

  const send = (pending: PendingSignal, now: number): Numbered => {
    pending.sentAt = now
    pending.number ??= next++
    sent.add(pending)
    return { signal: pending.signal, number: pending.number }
  }
  /** Whether signals wait, so that later ones share their batch. */
  const gathers = () =>
    isSlow &&
    batches.length >= maxForSlowPeer &&
    Math.min(states.size + unsent.size, maxInFlight - sent.size) < maxBatch
  const mayNumber = () => sent.size < maxInFlight && next < reserved
  const takeNew = (taken: Array<Numbered>, now: number) => {
    const first = next
    for (const kind of stateOrder) {
      const pending = mayNumber() ? states.get(kind) : undefined
      if (pending === undefined) continue
      states.delete(kind)
      taken.push(send(pending, now))
    }
    for (const pending of unsent) {
      if (taken.length >= maxBatch || !mayNumber()) break
      unsent.delete(pending)
      taken.push(send(pending, now))
    }
    if (next === first) return
    batches.push({ last: next - 1, at: now })
    onChange()
  }

  return {
    ready: ready.await,
    hasRoom: () => unsent.size + sent.size < limit,
    size: () => unsent.size + sent.size,
    putOnce: (kind) => {
      once.add(kind)
      ready.unsafeOpen()
    },
    put,
    launch: (signal, options) => {
      const pending: PendingSignal = { signal, ...options, number: undefined, sentAt: 0 }
      unsent.add(pending)
      ready.unsafeOpen()
      return pending
    },
    withdraw: remove,
    take: (now) => {
      const taken: Array<Numbered> = []
      for (const kind of livenessOrder) if (once.delete(kind)) taken.push(unnumbered[kind])
      for (const pending of resends) {
        if (taken.length >= maxBatch) break
        resends.delete(pending)
        taken.push(send(pending, now))
      }
      // Not before every resend is out: an acknowledgement covers all numbers up to one.
      // What shares a line with another signal waits for nothing.
      if (resends.size === 0 && (taken.length + once.size > 0 || !gathers())) takeNew(taken, now)
      // Any line carries an acknowledgement, so `Ack` is sent only when there is no other line.
      if (once.delete("Ack") && taken.length === 0) taken.push(unnumbered.Ack)
      if (resends.size + states.size + unsent.size === 0 && once.delete("Bye")) taken.push(unnumbered.Bye)
      if (taken.length === 0) ready.unsafeClose()
      return taken
    },
    acknowledge: (number, since = -Infinity) => {
      const open = batches.filter(({ last }) => last > number)
      const done = batches[batches.length - open.length - 1]
      if (done !== undefined) {
        isSlow = done.at < since
        batches = open
        ready.unsafeOpen()
      }
      for (const pending of sent) {
        if (pending.number === undefined || pending.number > number) break
        remove(pending)
        // A signal beyond `maxInFlight` may have waited for it.
        ready.unsafeOpen()
        onChange()
      }
    },
    resendAll: () => {
      batches = []
      isSlow = false
      for (const pending of sent) resends.add(pending)
      ready.unsafeOpen()
    },
    resendBefore: (time) => {
      for (const pending of sent) {
        if (resends.size >= maxBatch || pending.sentAt >= time) break
        resends.add(pending)
        ready.unsafeOpen()
      }
    },
    expire: (now) => {
      for (const launches of [sent, unsent]) {
        for (const pending of launches) {
          if (pending.due <= now) giveUp(pending, "Late")
          else if (pending.due !== Infinity) break
        }
      }
    },
    close: (options) => {
      for (const pending of [...(options.sent ? sent : []), ...unsent]) giveUp(pending, "Over")
    },
    dropConnections: () => {
      for (const pending of [...sent, ...unsent]) if (!isState(pending.signal)) giveUp(pending, "Restarted")
    },
    reserve: (limit) => {
      reserved = limit
      ready.unsafeOpen()
    },
    snapshot: () => ({
      next,
      signals: [...sent, ...states.values()]
        .filter(({ signal }) => isState(signal))
        .map(({ number, signal }) => ({ number, signal }))
    })
  }
}

// internal

interface Batch {
  /** The number of its last signal. */
  readonly last: number
  readonly at: number
}

const livenessOrder = ["Ping", "Pong"] as const
const stateOrder = ["Flush", "Demand", "Keep", "Targets"] as const

const isState = (signal: Signal.Signal): signal is State => stateOrder.some((kind) => kind === signal._tag)

const withoutNumber = (signal: Signal.Signal): Numbered => ({ signal, number: undefined })
const unnumbered = {
  Ping: withoutNumber(new Signal.Ping()),
  Pong: withoutNumber(new Signal.Pong()),
  Ack: withoutNumber(new Signal.Ack()),
  Bye: withoutNumber(new Signal.Bye())
}
