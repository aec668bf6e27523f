/**
 * A TCP socket as a `Connection`, by its descriptor alone, plain or with TLS on it: nothing of Node stands in between.
 *
 * The descriptor is in one place, which says -1 from the moment it is closed or given away. It is looked at before each
 * call, and no call waits, so none is closed twice, nor used after.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Address from "../../core/Address.js"
import { type Connection, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import type { Kernel } from "./Kernel.js"
import type { Half } from "./reactor/SharedState.js"
import { isLater } from "./ffi/Libc.js"
import type { Ready } from "./Poller.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import type { TlsSession } from "./tls/TlsSession.js"

/** A connection that is let go of, with what was read from it and put back. */
export type Released = Half

/** What is below a connection. */
export interface Below {
  /** Whether it is open and nothing of what was written, an end included, waits in this process. */
  readonly isWhole: () => boolean
  /**
   * Gives the descriptor away, once, still watched by the poller: the connection is closed for who still has it, and to
   * close it closes the `heir`.
   */
  readonly release: (heir?: Heir) => Released
}

/** What stands on a descriptor that was given away, where the scope of the connection still owns it. */
export interface Heir {
  readonly close: () => void
  readonly reset: () => void
}

/** What is below a connection, for who takes it over; nothing below one that is not made here. */
export const below = (connection: Connection): Below | undefined =>
  connection instanceof Socket ? connection : undefined

/** Closes what was released, at once or by a reset. */
export const closeHalf = ({ libc, openSsl }: Kernel, { descriptor, tls }: Half, asReset: boolean): void => {
  if (tls !== undefined) openSsl?.freeSession(tls.session)
  libc[asReset ? "linger" : "settle"](descriptor)
  libc.close(descriptor)
}

export interface MakeOptions {
  readonly tls?: TlsSession | undefined
  /** Whether the poller has the descriptor already. Defaults to `false`. */
  readonly isWatched?: boolean | undefined
}

/** A connection over an open socket, and what closes it. Owns the descriptor, and the TLS session where there is one. */
export const make = (
  kernel: Kernel,
  descriptor: number,
  remote: Address.Address,
  { isWatched = false, tls }: MakeOptions = {}
): { readonly connection: Connection; readonly close: () => void; readonly reset: () => void } => {
  const socket = new Socket(kernel, descriptor, remote, tls)
  socket.begin(isWatched)
  return { connection: socket, close: () => socket.close(), reset: () => socket.drop() }
}

// internal

/**
 * A class, since there are many: closures for each of its methods were most of what a connection weighed.
 *
 * What `Connection` has is made when it is asked for, and can be taken from it as from any record.
 */
class Socket implements Connection, Below {
  readonly kernel: Kernel
  readonly remote: Address.Address
  readonly tls: TlsSession | undefined
  /** -1 once it is closed, or given away. */
  fd: number
  /** Something may be there to be read. */
  readable = true
  /** The peer has half-closed, or all is over: there is no need to be told again. */
  over = false
  ended = false
  finished = false
  errno = 0
  heir: Heir | undefined
  reader: (() => void) | undefined
  writer: (() => void) | undefined
  name: Address.Address | undefined
  readonly front: Array<Uint8Array> = []
  readonly pending: Array<Uint8Array> = []

  constructor(kernel: Kernel, descriptor: number, remote: Address.Address, tls: TlsSession | undefined) {
    this.kernel = kernel
    this.fd = descriptor
    this.remote = remote
    this.tls = tls
  }

  begin(isWatched: boolean) {
    const { libc, poller } = this.kernel
    const ready: Ready = (state) => this.heard(state)
    if (isWatched) poller.pass(this.fd, ready)
    else if (!poller.watch(this.fd, ready)) this.errno = libc.errno()
  }

  // What a system call answered, or below zero its errno, which is asked at once: nothing may come between.

  checked(result: number) {
    return result < 0 ? -this.kernel.libc.errno() : result
  }
  take() {
    return this.tls === undefined
      ? this.checked(this.kernel.libc.read(this.fd, buffer, buffer.length))
      : this.tls.read(buffer)
  }
  put(bytes: Uint8Array) {
    return this.tls === undefined
      ? this.checked(this.kernel.libc.write(this.fd, bytes, bytes.length))
      : this.tls.write(bytes)
  }
  halfClose() {
    return this.tls === undefined ? this.checked(this.kernel.libc.shutdown(this.fd)) : this.tls.end()
  }

  closed(operation: "read" | "write") {
    return new TransportError({ operation, address: this.remote, reason: "Closed" })
  }
  error(operation: "read" | "write") {
    return this.fd < 0 ? this.closed(operation) : Errno.fromErrno(operation, this.remote, this.errno)
  }
  note(errno: number) {
    if (!isLater(errno)) this.errno = errno
  }

  get local(): Address.Address {
    if (this.name === undefined) {
      this.kernel.sockets.nameOf(this.fd, nameBuffer)
      this.name = SocketAddress.decode(nameBuffer)
    }
    return this.name
  }

  /** Bytes of writes are still in this process. */
  isFull() {
    return this.pending.length > 0 || this.tls?.isWaiting() === true
  }
  /** Hands to the kernel what it will take. */
  flush() {
    if (this.fd < 0 || this.errno !== 0) return
    const { pending, tls } = this
    for (let [first] = pending; first !== undefined; [first] = pending) {
      const written = this.put(first)
      if (written < 0) return this.note(-written)
      if (written === first.length) pending.shift()
      else if (written > 0) pending[0] = first.subarray(written)
      // It is full; to TLS that is not an error.
      if (written < first.length && tls !== undefined) return
    }
    const flushed = tls?.flush() ?? 0
    if (flushed < 0) this.note(-flushed)
  }
  heard(state: Parameters<Ready>[0]) {
    this.over ||= state.over
    if (state.readable) {
      this.readable = true
      this.reader?.()
    }
    if (state.writable) {
      this.flush()
      this.writer?.()
    }
  }

  leave() {
    if (this.fd >= 0) this.name = this.local
    const left = this.fd
    this.fd = -1
    return left
  }
  tell() {
    this.reader?.()
    this.writer?.()
  }
  close() {
    if (this.heir !== undefined) return this.heir.close()
    // Without a word of TLS an end is taken for a reset.
    if (this.fd >= 0 && !this.finished && this.errno === 0) this.tls?.end()
    if (this.fd >= 0) this.kernel.libc.settle(this.fd)
    this.shut()
  }
  shut() {
    const left = this.leave()
    if (left < 0) return
    this.kernel.poller.drop(left)
    this.tls?.free()
    this.kernel.libc.close(left)
    this.tell()
  }
  drop() {
    if (this.heir !== undefined) return this.heir.reset()
    if (this.fd >= 0) this.kernel.libc.linger(this.fd)
    this.shut()
  }
  get reset() {
    return Effect.sync(() => this.drop())
  }

  park<A>(again: Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> {
    return Effect.async((resume) => {
      // Between the look and this, something may have come.
      if (this.readable || this.fd < 0) return resume(again)
      this.reader = () => {
        this.reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(again)
      }
      return Effect.sync(() => {
        this.reader = undefined
      })
    })
  }
  /** What a look found: how much there is, `0` for the peer's end, or `undefined` while there is nothing. */
  found(count: number): number | undefined {
    if (count > 0) return count
    if (count === 0) {
      // After an error, which the system tells of once, all looks like an end.
      if (this.errno !== 0) return undefined
      this.ended = true
      return 0
    }
    if (isLater(-count)) this.readable = false
    else this.errno = -count
    return undefined
  }
  get read(): Effect.Effect<Option.Option<Uint8Array>, TransportError> {
    const read: Connection["read"] = Effect.suspend(() => {
      if (this.fd < 0) return Effect.fail(this.closed("read"))
      const first = this.front.pop()
      if (first !== undefined) return Effect.succeedSome(first)
      const count = this.ended ? 0 : this.readable ? this.found(this.take()) : undefined
      if (count === undefined) return this.errno === 0 ? this.park(read) : Effect.fail(this.error("read"))
      if (count === 0) return Effect.succeedNone
      // Less than there was room for: the kernel has no more, and tells of what comes next.
      if (count < buffer.length && this.tls === undefined) this.readable = this.over
      return Effect.succeedSome(buffer.slice(0, count))
    })
    return read
  }
  /** What `read` would answer with, unless it would wait; takes nothing. */
  look(): "Bytes" | "End" | "Failure" | undefined {
    if (this.fd < 0) return "Failure"
    if (this.front.length > 0) return "Bytes"
    const count = this.ended ? 0 : this.readable ? this.found(this.peekBytes()) : undefined
    if (count === undefined) return this.errno === 0 ? undefined : "Failure"
    // A session knows what came only by taking it.
    if (count > 0 && this.tls !== undefined) this.front.push(buffer.slice(0, count))
    return count === 0 ? "End" : "Bytes"
  }
  peekBytes() {
    return this.tls === undefined ? this.checked(this.kernel.sockets.peek(this.fd, buffer, 1)) : this.take()
  }
  get watch(): Connection["watch"] {
    return (heard) =>
      Effect.sync(() => {
        const waiting = () => {
          const seen = this.look()
          if (seen === undefined) return
          if (this.reader === waiting) this.reader = undefined
          heard(seen)
        }
        this.reader = waiting
        waiting()
        return Effect.sync(() => {
          if (this.reader === waiting) this.reader = undefined
        })
      })
  }
  get unread(): Connection["unread"] {
    return (chunk) => {
      if (chunk.length > 0) this.front.push(chunk)
    }
  }

  get flushed(): Effect.Effect<void, TransportError> {
    return Effect.async((resume) => {
      this.writer = () => {
        if (this.isFull() && this.fd >= 0 && this.errno === 0) return
        this.writer = undefined
        resume(this.fd >= 0 && this.errno === 0 ? Effect.void : Effect.fail(this.error("write")))
      }
      this.writer()
      return Effect.sync(() => {
        this.writer = undefined
      })
    })
  }
  get write(): Connection["write"] {
    return (chunk) =>
      Effect.suspend(() => {
        if (this.fd < 0 || this.finished) return Effect.fail(this.closed("write"))
        if (this.errno !== 0) return Effect.fail(this.error("write"))
        if (chunk.length > 0) this.pending.push(chunk)
        if (this.pending.length === 1) this.flush()
        return this.isFull() ? this.flushed : Effect.void
      })
  }
  get unsent(): Connection["unsent"] {
    return () => this.pending.reduce((sum, { length }) => sum + length, this.tls?.unsent() ?? 0)
  }
  get end(): Effect.Effect<void, TransportError> {
    return Effect.suspend(() => {
      if (this.finished) return Effect.void
      return Effect.flatMap(!this.isFull() && this.fd >= 0 ? Effect.void : this.flushed, () => {
        if (this.fd < 0) return Effect.fail(this.closed("write"))
        this.finished = true
        const told = this.halfClose()
        if (told >= 0) return Effect.void
        if (isLater(-told)) return Effect.zipRight(this.flushed, this.halfClosed)
        this.errno = -told
        return Effect.fail(this.error("write"))
      })
    })
  }
  /** Once what TLS says at the end is with the kernel. */
  get halfClosed(): Effect.Effect<void, TransportError> {
    return Effect.suspend(() => {
      if (this.fd < 0) return Effect.fail(this.closed("write"))
      const told = this.halfClose()
      if (told < 0) this.errno = -told
      return told < 0 ? Effect.fail(this.error("write")) : Effect.void
    })
  }

  isWhole() {
    return this.fd >= 0 && this.errno === 0 && !this.finished && this.pending.length === 0
  }
  release(to?: Heir): Released {
    this.heir = to
    const released = {
      descriptor: this.leave(),
      ahead: joined(this.front.splice(0).toReversed()),
      tls: this.tls?.rest()
    }
    this.tell()
    return released
  }
}

/** Shared: what is read is copied out of them at once. */
const buffer = new Uint8Array(64 * 1024)
const nameBuffer = new Uint8Array(SocketAddress.room)

/** In memory of their own: a chunk may be part of a larger piece, all of which a thread would be sent. */
const joined = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
