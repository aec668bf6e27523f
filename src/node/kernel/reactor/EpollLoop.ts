/**
 * The loop of the reactor's worker: exchanges between descriptors, until it is told to stop.
 */
import * as Pump from "./Pump.js"
import * as SharedState from "./SharedState.js"
import { type Libc, epoll, makeEvents } from "../ffi/Libc.js"
import type * as ReactorProtocol from "./ReactorProtocol.js"
import type { OpenSsl } from "../tls/OpenSsl.js"
import * as Pipes from "./Pipes.js"
import * as TlsSession from "../tls/TlsSession.js"
import * as TlsWire from "../tls/TlsWire.js"

interface Side extends Pump.End {
  /** What its epoll is to tell of it; 0 where it is not there. */
  interest: number
}

interface Pair {
  readonly slot: number
  readonly near: Side
  readonly far: Side
  /** From near to far. */
  readonly there: Pump.Pump
  readonly back: Pump.Pump
  readonly idleMillis: number
  quietMillis: number
  over: boolean
}

export interface Options {
  readonly libc: Libc
  /** Where it is missing, no half of an exchange has TLS. */
  readonly openSsl?: OpenSsl | undefined
  readonly ledger: SharedState.SharedState
  /** Is readable when there are commands, and this was asleep. */
  readonly wake: number
  readonly desk: ReactorProtocol.Desk
}

/** Serves until `Stop`, and blocks the thread. What it was given is its owner's again once it has reported so. */
export const run = ({ desk, ledger, libc, openSsl, wake }: Options): void => {
  const { descriptors } = ledger
  const pipes = Pipes.make(libc, ledger)
  const pump = Pump.makeMove({ libc, pipes })
  const pairs = new Map<number, Pair>()
  /** By descriptor. */
  const owners: Array<Pair | undefined> = []
  const events = makeEvents(256)
  const wakeBytes = new Uint8Array(8)
  const poll = libc.epollCreate()
  if (poll < 0 || libc.epollControl(poll, epoll.add, wake, epoll.in) < 0) throw new Error(`epoll: ${libc.errno()}`)
  descriptors[SharedState.epollAt] = poll
  let period = longestPeriod
  let swept = performance.now()
  let wire: TlsWire.Wire | undefined

  const openWire = (): TlsWire.Wire => {
    if (openSsl === undefined) throw new Error("no OpenSSL")
    const made = TlsWire.make(openSsl, libc)
    ledger.halves.set(made.halves)
    return made
  }
  const sideOf = (side: Side["side"], { descriptor: fd, tls }: SharedState.Half): Side => ({
    side,
    fd,
    tls: tls && TlsSession.make((wire ??= openWire()), fd, tls),
    interest: 0
  })

  const over = (pair: Pair, outcome: SharedState.Outcome) => {
    if (pair.over) return
    pair.over = true
    pairs.delete(pair.slot)
    if (pairs.size === 0) period = longestPeriod
    for (const direction of [pair.there, pair.back]) {
      if (direction.pipe === undefined) continue
      if (direction.held > 0) pipes.discard(direction.pipe)
      else pipes.give(direction.pipe)
      direction.pipe = undefined
    }
    for (const side of [pair.near, pair.far]) {
      owners[side.fd] = undefined
      if (side.interest !== 0) libc.epollControl(poll, epoll.remove, side.fd, 0)
    }
    for (const { tls } of [pair.near, pair.far]) tls?.rest()
    desk.report({ _tag: "Over", slot: pair.slot, outcome })
  }

  /** Without an interest a side is not in the epoll, which tells of errors and hang-ups unasked, over and over. */
  const watch = (pair: Pair, side: Side, incoming: Pump.Pump, outgoing: Pump.Pump) => {
    const waits = Pump.isFull(incoming) || incoming.ended || incoming.asked
    const interest = (waits ? 0 : epoll.in) | (Pump.isFull(outgoing) ? epoll.out : 0)
    if (interest === side.interest) return
    const operation = interest === 0 ? epoll.remove : side.interest === 0 ? epoll.add : epoll.modify
    side.interest = interest
    if (libc.epollControl(poll, operation, side.fd, interest) >= 0) return
    over(pair, { _tag: "Broken", side: side.side, operation: "read", errno: libc.errno() })
  }
  const go = (pair: Pair, there: boolean, back: boolean) => {
    const failure = (there ? pump(pair.there) : undefined) ?? (back ? pump(pair.back) : undefined)
    if (failure !== undefined) return over(pair, failure)
    if (pair.there.done && pair.back.done) return over(pair, { _tag: "Done" })
    watch(pair, pair.near, pair.there, pair.back)
    if (!pair.over) watch(pair, pair.far, pair.back, pair.there)
  }

  const begin = ({ far, idleMillis, near, slot }: SharedState.Begin) => {
    const ends = { near: sideOf("near", near), far: sideOf("far", far) }
    const counter = (at: number) => ({ cells: ledger.bytes, at: 2 * slot + at })
    const want = (way: SharedState.Way) => desk.report({ _tag: "Want", slot, way })
    const [there, back] = Pump.pair([ends.near, ends.far], [counter(0), counter(1)], [near, far], want)
    const pair: Pair = {
      slot,
      ...ends,
      there,
      back,
      idleMillis,
      quietMillis: 0,
      over: false
    }
    pairs.set(slot, pair)
    owners[near.descriptor] = pair
    owners[far.descriptor] = pair
    period = Math.max(Math.min(period, Math.ceil(idleMillis / 4)), shortestPeriod)
    go(pair, true, true)
  }
  const give = (pair: Pair, { bytes, way }: SharedState.Grant) => {
    const isThere = way === "near"
    Pump.grant(isThere ? pair.there : pair.back, bytes)
    go(pair, isThere, !isThere)
  }
  /** Answers whether to go on. */
  const obey = (): boolean => {
    let goesOn = true
    for (let command = desk.next(); command !== undefined; command = desk.next()) {
      if (command._tag === "Begin") begin(command)
      else if (command._tag === "Stop") goesOn = false
      else {
        const pair = pairs.get(command.slot)
        if (pair === undefined) continue
        if (command._tag === "Abort") over(pair, { _tag: "Aborted" })
        else give(pair, command)
      }
    }
    return goesOn
  }

  const sweep = (millis: number) => {
    for (const pair of pairs.values()) {
      const active = [pair.there, pair.back].some(({ active, asked }) => active || asked)
      for (const direction of [pair.there, pair.back]) {
        if (!direction.active && direction.pipe !== undefined && direction.held === 0) {
          pipes.give(direction.pipe)
          direction.pipe = undefined
        }
        direction.active = false
      }
      pair.quietMillis = active ? 0 : pair.quietMillis + millis
      if (pair.quietMillis >= pair.idleMillis) over(pair, { _tag: "Idle" })
    }
  }

  const serve = (fd: number, flags: number) => {
    const pair = owners[fd]
    if (pair === undefined) return
    const { interest } = fd === pair.near.fd ? pair.near : pair.far
    const broken = (flags & (epoll.error | epoll.hangUp)) !== 0
    const readable = (interest & epoll.in) !== 0 && (broken || (flags & epoll.in) !== 0)
    const writable = (interest & epoll.out) !== 0 && (broken || (flags & epoll.out) !== 0)
    if (fd === pair.near.fd) go(pair, readable, writable)
    else go(pair, writable, readable)
  }

  for (let goesOn = true; goesOn;) {
    const count = libc.epollWait(poll, events, desk.maySleep() ? period : 0)
    desk.wakeUp()
    for (let index = 0; index < count; index++) {
      const fd = events.fd(index)
      if (fd === wake) libc.read(wake, wakeBytes, wakeBytes.length)
      else serve(fd, events.flags(index))
    }
    // Last: a descriptor that was closed above may be in use again below, and is not what the events told of.
    goesOn = obey()
    const now = performance.now()
    if (now - swept >= period) {
      sweep(now - swept)
      swept = now
    }
  }
  for (const pair of pairs.values()) over(pair, { _tag: "Aborted" })
  pipes.close()
  ledger.halves.fill(0n)
  wire?.free()
  descriptors[SharedState.epollAt] = 0
  libc.close(poll)
}

// internal

/** Also how soon the thread notices that it is to be gone, by whoever does not tell it. */
const longestPeriod = 1000
const shortestPeriod = 10
