/**
 * Moves the bytes of one direction of an exchange, from one socket to the other: through a shared buffer, or through a
 * pipe for bulk where neither socket has TLS.
 */
import type { DetachedSocket, ExchangeResult, Side } from "./ReactorMessages.js"
import { type Libc, type Pipe, isRetryable } from "../ffi/Libc.js"
import type { Kept } from "../../../relay/Kept.js"
import type * as Pipes from "./Pipes.js"
import type { TlsSession } from "../tls/TlsSession.js"

/** A socket of an exchange. */
export interface Endpoint {
  readonly side: Side
  readonly fd: number
  readonly tls: TlsSession | undefined
}

/** A cell of shared memory that counts the bytes of one direction. */
export interface Counter {
  readonly cells: Float64Array
  readonly index: number
}

export interface Pump {
  readonly from: Endpoint
  readonly to: Endpoint
  readonly counter: Counter
  /** What was read and could not be written yet. The TLS session of the sink may hold more. */
  pending: Uint8Array | undefined
  pipe: Pipe | undefined
  pipedBytes: number
  /** The source has half-closed. */
  ended: boolean
  /** The source has half-closed, and the sink was half-closed for it. */
  done: boolean
  /** Something moved since this was last set to `false`. */
  active: boolean
  /** Bytes that may be read before the next grant. */
  allowance: number
  readonly requestGrant: (side: Side) => void
  /** A grant was requested and has not come yet. */
  grantRequested: boolean
  /** Keeps what is read from the source. */
  kept: Kept | undefined
  /** The other direction. */
  opposite: Pump | undefined
  /** Without a pipe, reads in a row that filled the buffer; with a pipe, reads in a row that carried little. */
  streak: number
}

/** Both directions of an exchange. */
export const pair = (
  [near, far]: readonly [Endpoint, Endpoint],
  counters: readonly [Counter, Counter],
  sockets: readonly [DetachedSocket, DetachedSocket],
  requestGrant: Pump["requestGrant"]
): readonly [forward: Pump, backward: Pump] => {
  const forward = make([near, far], counters[0], sockets[0], requestGrant)
  const backward = make([far, near], counters[1], sockets[1], requestGrant)
  forward.opposite = backward
  backward.opposite = forward
  return [forward, backward]
}

/** Whether it waits for the sink to take what it holds. Otherwise it waits for the source, unless that has ended. */
export const isFull = ({ pending, pipedBytes, to }: Pump): boolean =>
  pending !== undefined || pipedBytes > 0 || to.tls?.isWaiting() === true

/** Lets more bytes pass. */
export const grant = (pump: Pump, bytes: number): void => {
  pump.allowance += bytes
  pump.grantRequested = false
  pump.active = true
}

export interface Options {
  readonly libc: Libc
  /**
   * Whether the caller closes both sockets as soon as both directions are done. Closing forwards the second end, so the
   * half-close of its socket is left out. Defaults to `false`.
   */
  readonly isClosedWhenDone?: boolean | undefined
  readonly pipes: Pick<Pipes.Pipes, "acquire" | "capacity" | "release">
}

/**
 * Moves what can be moved now, up to a limit that is fair to other exchanges. Returns the failure that broke the exchange.
 *
 * An end of the source is forwarded at once.
 */
export type Advance = (pump: Pump) => Broken | undefined

type Broken = Extract<ExchangeResult, { readonly _tag: "Broken" }>

export const makeAdvance = ({ isClosedWhenDone = false, libc, pipes }: Options): Advance => {
  const buffer = new Uint8Array(bufferSize)

  // A result below zero is a negative errno. `errno` is read right after the call: another call would overwrite it.

  const checked = (result: number): number => (result < 0 ? -libc.errno() : result)
  const read = ({ fd, tls }: Endpoint, limit: number): number =>
    tls === undefined ? checked(libc.read(fd, buffer, limit)) : tls.read(buffer)
  const write = ({ fd, tls }: Endpoint, bytes: Uint8Array, length: number): number =>
    tls === undefined
      ? checked(libc.write(fd, bytes, length))
      : tls.write(length === bytes.length ? bytes : bytes.subarray(0, length))

  // The end of the source

  const forwardEnd = (pump: Pump): Broken | undefined => {
    if (pump.done) return
    pump.ended = true
    releasePipe(pump)
    const { fd, tls } = pump.to
    const isLast = isClosedWhenDone && pump.opposite?.done === true
    const result = tls !== undefined ? tls.end() : isLast ? 0 : checked(libc.shutdown(fd))
    if (result < 0) return broken("write", pump, result)
    pump.done = true
    pump.active = true
  }
  const releasePipe = (pump: Pump) => {
    if (pump.pipe !== undefined) pipes.release(pump.pipe)
    pump.pipe = undefined
    pump.streak = 0
  }

  // To the sink: what an earlier call could not write

  const flush = (pump: Pump): Broken | undefined => {
    const { pending, pipe, to } = pump
    if (pipe !== undefined && pump.pipedBytes > 0) return drainPipe(pump, pipe)
    if (pending === undefined) {
      const flushed = to.tls?.flush() ?? 0
      pump.active = true
      return flushed < 0 ? broken("write", pump, flushed) : undefined
    }
    const written = write(to, pending, pending.length)
    if (written < 0) return broken("write", pump, written)
    count(pump, written)
    pump.pending = written === pending.length ? undefined : pending.subarray(written)
  }
  const drainPipe = (pump: Pump, pipe: Pipe): Broken | undefined => {
    const written = checked(libc.splice(pipe.read, pump.to.fd, pump.pipedBytes))
    if (written < 0) return broken("write", pump, written)
    count(pump, written)
    pump.pipedBytes -= written
  }

  // From the source to the sink: "Again" when there may be more to read

  const copy = (pump: Pump): Broken | "Again" | undefined => {
    const { from, to } = pump
    const limit = Math.min(readSize, pump.allowance)
    const got = read(from, limit)
    if (got === 0) return forwardEnd(pump)
    if (got < 0) return broken("read", pump, got)
    pump.allowance -= got
    if (pump.kept?.isKeeping() === true) pump.kept.add(buffer.slice(0, got))
    pump.streak = got === readSize ? pump.streak + 1 : 0
    if (pump.streak === fullReadsBeforePipe && from.tls === undefined && to.tls === undefined) {
      pump.streak = 0
      pump.pipe = pipes.acquire()
    }
    const written = write(to, buffer, got)
    const failure = written < 0 ? broken("write", pump, written) : undefined
    if (failure !== undefined) return failure
    if (written < got) pump.pending = buffer.slice(Math.max(written, 0), got)
    if (written > 0) count(pump, written)
    return got >= limit || from.tls?.hasBuffered() === true ? "Again" : undefined
  }
  const splice = (pump: Pump, pipe: Pipe): Broken | "Again" | undefined => {
    const got = checked(libc.splice(pump.from.fd, pipe.write, Math.min(pipes.capacity, pump.allowance)))
    if (got === 0) return forwardEnd(pump)
    if (got < 0) return broken("read", pump, got)
    pump.allowance -= got
    pump.pipedBytes = got
    const failure = drainPipe(pump, pipe)
    if (failure !== undefined) return failure
    pump.streak = got < smallRead ? pump.streak + 1 : 0
    if (pump.streak >= smallReadsBeforeRelease && pump.pipedBytes === 0) releasePipe(pump)
    return "Again"
  }

  return (pump) => {
    // Bytes that a TLS session has buffered are moved whatever the limit: epoll does not report them.
    for (let round = 0; round < maxRounds || pump.from.tls?.hasBuffered() === true; round++) {
      if (isFull(pump)) {
        const failure = flush(pump)
        if (failure !== undefined) return failure
        if (isFull(pump)) return
      }
      if (pump.ended) return forwardEnd(pump)
      if (pump.allowance <= 0) {
        if (pump.grantRequested) return
        pump.grantRequested = true
        pump.requestGrant(pump.from.side)
        return
      }
      const result = pump.pipe === undefined ? copy(pump) : splice(pump, pump.pipe)
      if (result !== "Again") return result
    }
  }
}

// internal

/** The direction of what comes from this socket. */
const make = (
  [from, to]: readonly [Endpoint, Endpoint],
  counter: Counter,
  { allowance = Infinity, buffered, done = false }: DetachedSocket,
  requestGrant: Pump["requestGrant"]
): Pump => ({
  from,
  to,
  counter,
  pending: buffered.length > 0 ? buffered : undefined,
  pipe: undefined,
  pipedBytes: 0,
  ended: done,
  done,
  active: true,
  allowance,
  requestGrant,
  grantRequested: false,
  kept: undefined,
  opposite: undefined,
  streak: 0
})

const count = (pump: Pump, bytes: number) => {
  const { cells, index } = pump.counter
  cells[index] = (cells[index] ?? 0) + bytes
  pump.active = true
}

/** `undefined` when the call only has to be made again later. */
const broken = (operation: "read" | "write", { from, to }: Pump, result: number): Broken | undefined =>
  isRetryable(-result)
    ? undefined
    : { _tag: "Broken", side: (operation === "read" ? from : to).side, operation, errno: -result }

/** Bytes of one read from a socket. */
const readSize = 64 * 1024
/** A read of plain text from a TLS session may also return the rest of an earlier record. */
const bufferSize = 128 * 1024

/** Reads of one direction before it is the turn of others. */
const maxRounds = 16

/** Full reads in a row after which a direction carries bulk. */
const fullReadsBeforePipe = 4
/** Bytes of a read that is too small for a pipe to pay, and how many such reads in a row release the pipe. */
const smallRead = 16 * 1024
const smallReadsBeforeRelease = 64
