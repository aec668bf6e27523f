/**
 * The exchanges of a relay thread: begins them, moves their bytes when epoll reports events, and ends them.
 *
 * Who owns a descriptor when: see `ReactorMessages`. Nothing here closes one.
 */
import { type Libc, epoll } from "../ffi/Libc.js"
import type { OpenSsl } from "../tls/OpenSsl.js"
import * as TlsSession from "../tls/TlsSession.js"
import * as TlsWire from "../tls/TlsWire.js"
import * as Pipes from "./Pipes.js"
import * as Pump from "./Pump.js"
import type { BeginExchange, DetachedSocket, ExchangeResult, GrantBytes, Report, Side } from "./ReactorMessages.js"
import type { SharedState } from "./SharedState.js"

export interface WorkerExchanges {
  readonly begin: (command: BeginExchange) => void
  readonly grant: (command: GrantBytes) => void
  readonly abort: (slot: number) => void
  /** Handles the events of epoll for a descriptor. */
  readonly handle: (fd: number, flags: number) => void
  /** Ends the exchanges that were idle too long, and releases the pipes that carried nothing. `millis` since the last sweep. */
  readonly sweep: (millis: number) => void
  /** Milliseconds between two sweeps: at most a quarter of the shortest idle limit. */
  readonly sweepMillis: () => number
  /** Aborts all exchanges, and closes what was opened for them. */
  readonly close: () => void
}

export interface Options {
  readonly libc: Libc
  /** Without it, no socket of an exchange has TLS. */
  readonly openSsl?: OpenSsl | undefined
  readonly sharedState: SharedState
  readonly epollFd: number
  readonly report: (report: Report) => void
}

export const make = ({ epollFd, libc, openSsl, report, sharedState }: Options): WorkerExchanges => {
  const pipes = Pipes.make(libc, sharedState)
  const advance = Pump.makeAdvance({ libc, pipes })
  const bySlot = new Map<number, Exchange>()
  const byDescriptor: Array<Exchange | undefined> = []
  let sweepMillis = maxSweepMillis
  let wire: TlsWire.Wire | undefined

  // Beginning

  const openWire = (): TlsWire.Wire => {
    if (openSsl === undefined) throw new Error("no OpenSSL")
    const opened = TlsWire.make(openSsl, libc)
    sharedState.bios.set(opened.bios)
    return opened
  }
  const endpoint = (side: Side, { descriptor: fd, tls }: DetachedSocket): WatchedEndpoint => ({
    side,
    fd,
    tls: tls && TlsSession.make((wire ??= openWire()), fd, tls),
    interest: 0
  })
  const begin = ({ far, idleMillis, near, slot }: BeginExchange) => {
    const endpoints = { near: endpoint("near", near), far: endpoint("far", far) }
    const [forward, backward] = Pump.pair(
      [endpoints.near, endpoints.far],
      [
        { cells: sharedState.bytes, index: 2 * slot },
        { cells: sharedState.bytes, index: 2 * slot + 1 }
      ],
      [near, far],
      (side) => report({ _tag: "GrantRequested", slot, side })
    )
    const exchange: Exchange = { slot, ...endpoints, forward, backward, idleMillis, idleForMillis: 0, isOver: false }
    bySlot.set(slot, exchange)
    byDescriptor[near.descriptor] = exchange
    byDescriptor[far.descriptor] = exchange
    sweepMillis = Math.max(Math.min(sweepMillis, Math.ceil(idleMillis / 4)), minSweepMillis)
    advanceBoth(exchange, true, true)
  }

  // Moving bytes

  const advanceBoth = (exchange: Exchange, isForward: boolean, isBackward: boolean) => {
    const { backward, far, forward, near } = exchange
    const failure = (isForward ? advance(forward) : undefined) ?? (isBackward ? advance(backward) : undefined)
    if (failure !== undefined) return finish(exchange, failure)
    if (forward.done && backward.done) return finish(exchange, { _tag: "Done" })
    watch(exchange, near, forward, backward)
    if (!exchange.isOver) watch(exchange, far, backward, forward)
  }
  /**
   * Registers with epoll what an endpoint waits for. An endpoint that waits for nothing is removed from epoll, which otherwise reports
   * its errors and hang-ups again and again.
   */
  const watch = (exchange: Exchange, endpoint: WatchedEndpoint, incoming: Pump.Pump, outgoing: Pump.Pump) => {
    const interest = interestOf(incoming, outgoing)
    if (interest === endpoint.interest) return
    const operation = interest === 0 ? epoll.remove : endpoint.interest === 0 ? epoll.add : epoll.modify
    endpoint.interest = interest
    if (libc.epollControl(epollFd, operation, endpoint.fd, interest) >= 0) return
    finish(exchange, { _tag: "Broken", side: endpoint.side, operation: "read", errno: libc.errno() })
  }
  const handle = (fd: number, flags: number) => {
    const exchange = byDescriptor[fd]
    if (exchange === undefined) return
    const isNear = fd === exchange.near.fd
    const { interest } = isNear ? exchange.near : exchange.far
    const isBroken = (flags & (epoll.error | epoll.hangUp)) !== 0
    const isReadable = (interest & epoll.in) !== 0 && (isBroken || (flags & epoll.in) !== 0)
    const isWritable = (interest & epoll.out) !== 0 && (isBroken || (flags & epoll.out) !== 0)
    if (isNear) advanceBoth(exchange, isReadable, isWritable)
    else advanceBoth(exchange, isWritable, isReadable)
  }
  const grant = ({ bytes, side, slot }: GrantBytes) => {
    const exchange = bySlot.get(slot)
    if (exchange === undefined) return
    const isForward = side === "near"
    Pump.grant(isForward ? exchange.forward : exchange.backward, bytes)
    advanceBoth(exchange, isForward, !isForward)
  }

  // Ending

  const finish = (exchange: Exchange, result: ExchangeResult) => {
    if (exchange.isOver) return
    exchange.isOver = true
    const { backward, far, forward, near, slot } = exchange
    bySlot.delete(slot)
    if (bySlot.size === 0) sweepMillis = maxSweepMillis
    for (const pump of [forward, backward]) {
      if (pump.pipe === undefined) continue
      if (pump.pipedBytes > 0) pipes.discard(pump.pipe)
      else pipes.release(pump.pipe)
      pump.pipe = undefined
    }
    for (const { fd, interest, tls } of [near, far]) {
      byDescriptor[fd] = undefined
      if (interest !== 0) libc.epollControl(epollFd, epoll.remove, fd, 0)
      tls?.detach()
    }
    report({ _tag: "ExchangeEnded", slot, result })
  }
  const abort = (slot: number) => {
    const exchange = bySlot.get(slot)
    if (exchange !== undefined) finish(exchange, { _tag: "Aborted" })
  }
  const sweep = (millis: number) => {
    for (const exchange of bySlot.values()) {
      const { backward, forward } = exchange
      const isActive = [forward, backward].some(({ active, grantRequested }) => active || grantRequested)
      for (const pump of [forward, backward]) {
        if (!pump.active && pump.pipe !== undefined && pump.pipedBytes === 0) {
          pipes.release(pump.pipe)
          pump.pipe = undefined
        }
        pump.active = false
      }
      exchange.idleForMillis = isActive ? 0 : exchange.idleForMillis + millis
      if (exchange.idleForMillis >= exchange.idleMillis) finish(exchange, { _tag: "Idle" })
    }
  }
  const close = () => {
    for (const exchange of bySlot.values()) finish(exchange, { _tag: "Aborted" })
    pipes.close()
    sharedState.bios.fill(0n)
    wire?.free()
  }

  return { begin, grant, abort, handle, sweep, sweepMillis: () => sweepMillis, close }
}

// internal

interface WatchedEndpoint extends Pump.Endpoint {
  /** The events that epoll reports; 0 while the endpoint is not in epoll. */
  interest: number
}

interface Exchange {
  readonly slot: number
  readonly near: WatchedEndpoint
  readonly far: WatchedEndpoint
  /** From near to far. */
  readonly forward: Pump.Pump
  readonly backward: Pump.Pump
  readonly idleMillis: number
  idleForMillis: number
  isOver: boolean
}

/** What an endpoint waits for: bytes, while the direction from it has room and a grant; room, while the direction to it is full. */
const interestOf = (incoming: Pump.Pump, outgoing: Pump.Pump): number => {
  const mayRead = !Pump.isFull(incoming) && !incoming.ended && !incoming.grantRequested
  return (mayRead ? epoll.in : 0) | (Pump.isFull(outgoing) ? epoll.out : 0)
}

const maxSweepMillis = 1000
const minSweepMillis = 10
