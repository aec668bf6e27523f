/**
 * What one side has to say to the other, in the order in which it is said, kept until the other side has it.
 *
 * Liveness goes first, then what was said before and must be said again, then the state of the pool, then launches in
 * order of arrival. Source: docs/protocol.md §Signals.
 */
import { constVoid } from "effect/Function"
import type { Numbered } from "../wire/Dialect.js"
import * as Signal from "../wire/Signal.js"

/** A signal that is numbered when it is first said, and kept until that number is acknowledged. */
export type Lasting = Signal.Demand | Signal.Flush | Signal.Keep | Signal.Launch

/** A launch that is not acknowledged yet. */
export interface Held {
  readonly signal: Lasting
  /** When it is given up; `Infinity` for what is no launch. */
  readonly due: number
  /** Called when it is given up, and with that never said again. */
  readonly refuse: (why: "Late" | "Over") => void
  number: number | undefined
  /** When it was last said. */
  said: number
}

export interface Outbox {
  /** Has room for another launch. */
  readonly hasRoom: () => boolean
  /** Launches kept. */
  readonly size: () => number
  /** Has it said with the next batch, once however often it was asked for. */
  readonly announce: (kind: "Ping" | "Pong" | "Ack" | "Bye") => void
  /** Replaces one of its kind that was not said yet. */
  readonly put: (signal: Signal.Demand | Signal.Flush | Signal.Keep) => void
  readonly launch: (signal: Signal.Launch, options: Pick<Held, "due" | "refuse">) => Held
  /** Its visitor has left. What was said already is not said again, and nobody is refused. */
  readonly withdraw: (held: Held) => void
  /** The next batch, empty when there is nothing to say. */
  readonly take: (now: number) => ReadonlyArray<Numbered>
  /** The other side has all up to this number. Says whether anything was waiting for that. */
  readonly acknowledge: (number: number) => boolean
  /** Has everything said again that is not acknowledged: the control connection is another one. */
  readonly replay: () => void
  /** Has the oldest said again that was last said before `since`. Says how many. */
  readonly repeat: (since: number) => number
  /** Gives up the launches that were due. */
  readonly expire: (now: number) => void
  /** Gives up every launch; those that were said only if `said` is to be given up too. */
  readonly close: (options: { readonly said: boolean }) => void
  /** What another outbox needs to go on in this one's place: all but its launches. */
  readonly saved: () => Snapshot
}

export interface Snapshot {
  /** The number of the next signal. */
  readonly next: number
  readonly signals: ReadonlyArray<Numbered>
}

export interface Options {
  /** Launches kept at most. */
  readonly limit: number
  /** What it goes on with. Defaults to nothing, its first number being `0`. */
  readonly saved?: Snapshot | undefined
}

/** Signals in a batch, at most: some kilobytes, so that liveness never has much in front of it. */
export const batch = 128
/** Signals said and not acknowledged, at most: what is in front of a ping on a connection that hardly moves. */
export const flight = 1024

export const make = ({ limit, saved }: Options): Outbox => {
  const announced = new Set<"Ping" | "Pong" | "Ack" | "Bye">()
  const states = new Map<Lasting["_tag"], Held>()
  const waiting = new Set<Held>()
  const said = new Set<Held>()
  const again = new Set<Held>()
  let next = saved?.next ?? 0

  const put = (signal: Signal.Demand | Signal.Flush | Signal.Keep) => {
    states.set(signal._tag, { signal, due: Infinity, refuse: constVoid, number: undefined, said: 0 })
  }
  for (const { number, signal } of saved?.signals ?? []) {
    if (signal._tag !== "Demand" && signal._tag !== "Flush" && signal._tag !== "Keep") continue
    if (number === undefined) put(signal)
    else said.add({ signal, due: Infinity, refuse: constVoid, number, said: 0 })
  }

  const forget = (held: Held) => {
    said.delete(held)
    again.delete(held)
  }
  const refuse = (held: Held, why: "Late" | "Over") => {
    waiting.delete(held)
    forget(held)
    held.refuse(why)
  }

  const say = (held: Held, now: number): Numbered => {
    held.said = now
    held.number ??= next++
    said.add(held)
    return { signal: held.signal, number: held.number }
  }

  return {
    hasRoom: () => waiting.size + said.size < limit,
    size: () => waiting.size + said.size,
    announce: (kind) => announced.add(kind),
    put,
    launch: (signal, options) => {
      const held: Held = { signal, ...options, number: undefined, said: 0 }
      waiting.add(held)
      return held
    },
    withdraw: (held) => {
      waiting.delete(held)
      forget(held)
    },
    take: (now) => {
      const taken: Array<Numbered> = []
      // An acknowledgement rides on what else there is.
      for (const kind of liveness) if (announced.delete(kind)) taken.push(once[kind])
      for (const held of again) {
        if (taken.length >= batch) break
        again.delete(held)
        taken.push(say(held, now))
      }
      // In the order of their numbers: what is acknowledged is all up to one.
      if (again.size === 0) {
        for (const kind of priority) {
          const held = said.size < flight ? states.get(kind) : undefined
          if (held === undefined) continue
          states.delete(kind)
          taken.push(say(held, now))
        }
        for (const held of waiting) {
          if (taken.length >= batch || said.size >= flight) break
          waiting.delete(held)
          taken.push(say(held, now))
        }
      }
      if (announced.delete("Ack") && taken.length === 0) taken.push(once.Ack)
      if (again.size + states.size + waiting.size === 0 && announced.delete("Bye")) taken.push(once.Bye)
      return taken
    },
    acknowledge: (number) => {
      let any = false
      for (const held of said) {
        if (held.number === undefined || held.number > number) break
        any = true
        forget(held)
      }
      return any
    },
    replay: () => {
      for (const held of said) again.add(held)
    },
    repeat: (since) => {
      const before = again.size
      for (const held of said) {
        if (again.size >= batch || held.said >= since) break
        again.add(held)
      }
      return again.size - before
    },
    expire: (now) => {
      for (const launches of [said, waiting]) {
        for (const held of launches) {
          if (held.due <= now) refuse(held, "Late")
          else if (held.due !== Infinity) break
        }
      }
    },
    close: (options) => {
      for (const held of [...(options.said ? said : []), ...waiting]) refuse(held, "Over")
    },
    saved: () => ({
      next,
      signals: [...said, ...states.values()]
        .filter(({ signal }) => signal._tag !== "Launch")
        .map(({ number, signal }) => ({ number, signal }))
    })
  }
}

// internal

const liveness = ["Ping", "Pong"] as const
const priority = ["Flush", "Demand", "Keep"] as const

const unnumbered = (signal: Signal.Signal): Numbered => ({ signal, number: undefined })
const once = {
  Ping: unnumbered(new Signal.Ping()),
  Pong: unnumbered(new Signal.Pong()),
  Ack: unnumbered(new Signal.Ack()),
  Bye: unnumbered(new Signal.Bye())
}
