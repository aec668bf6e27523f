/**
 * A TCP socket by its descriptor, plain or with TLS: its state, and the system calls on it, none of which waits.
 *
 * The main thread owns the descriptor until the socket is closed or detached. From then on `fd` is -1. Every method looks at
 * `fd` before a system call, so no descriptor is closed twice or used after its end.
 */
import * as Address from "../../core/Address.js"
import { isRetryable } from "./ffi/Libc.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"
import type { Kernel } from "./Kernel.js"
import type { Readiness, Watcher } from "./Poller.js"
import type { DetachedSocket } from "./reactor/ReactorMessages.js"
import type { TlsSession } from "./tls/TlsSession.js"

/**
 * What uses the descriptor after it was detached. The scope of the connection still owns the socket: closing or resetting
 * the connection closes or resets the successor.
 */
export interface Successor {
  readonly close: () => void
  readonly reset: () => void
}

/** Uses a socket without fibers. Each method is called when something becomes possible, and when the socket is closed. */
export interface SocketUser {
  becameReadable(): void
  becameWritable(): void
}

/** Closes a detached socket, with an end or with a reset. */
export const closeDetached = (
  { libc, openSsl, sockets }: Kernel,
  { descriptor, tls }: DetachedSocket,
  how: "End" | "Reset"
): void => {
  if (tls !== undefined) openSsl?.freeSession(tls.session)
  if (how === "Reset") sockets.resetOnClose(descriptor)
  else sockets.endOnClose(descriptor)
  libc.close(descriptor)
}

/** A class, since there are many sockets, and closures for each method would take most of the memory. */
export class KernelSocket implements Watcher {
  readonly kernel: Kernel
  readonly remote: Address.Address
  readonly tls: TlsSession | undefined
  fd: number
  /** The kernel may have something to read. */
  readable = true
  /** The peer has half-closed, or the connection is over. The poller does not report that again. */
  hungUp = false
  /** The poller has reported an error, which the next call that is not satisfied before tells. */
  failed = false
  /** The end of the peer was read. */
  ended = false
  /** Our side is half-closed. */
  finished = false
  /** The errno that broke the connection, or 0. */
  errno = 0
  successor: Successor | undefined
  /** Called when something may be read, and when the socket is closed. */
  onReadable: (() => void) | undefined
  /** Called when something may be written, and when the socket is closed. */
  onWritable: (() => void) | undefined
  private user: SocketUser | undefined
  name: Address.Address | undefined
  /** Bytes that were put back, the first to be read last. */
  readonly putBack: Array<Uint8Array> = []
  /** Writes that the kernel has not taken. */
  readonly pending: Array<Uint8Array> = []

  constructor(kernel: Kernel, descriptor: number, remote: Address.Address, tls: TlsSession | undefined) {
    this.kernel = kernel
    this.fd = descriptor
    this.remote = remote
    this.tls = tls
  }

  /** Has the poller report what becomes possible. `isWatched`: the poller already watches the descriptor. */
  watchDescriptor(isWatched: boolean) {
    const { libc, poller } = this.kernel
    if (isWatched) poller.setHandler(this.fd, this)
    else if (!poller.watch(this.fd, this)) this.errno = libc.errno()
  }
  /** Has `user` told in place of the present listeners. */
  use(user: SocketUser | undefined) {
    this.onReadable = undefined
    this.onWritable = undefined
    this.user = user
  }
  handle(state: Readiness) {
    this.hungUp ||= state.hungUp
    this.failed ||= state.failed
    if (state.readable) {
      this.readable = true
      this.onReadable?.()
      this.user?.becameReadable()
    }
    if (state.writable) {
      this.flush()
      this.onWritable?.()
      this.user?.becameWritable()
    }
  }

  get local(): Address.Address {
    if (this.name === undefined && this.fd < 0) return unknownAddress
    if (this.name === undefined) {
      this.kernel.sockets.nameOf(this.fd, nameBuffer)
      this.name = SocketAddress.decode(nameBuffer)
    }
    return this.name
  }

  // System calls: a result below zero is a negative errno. It is read right after the call, which another would overwrite.

  checked(result: number) {
    return result < 0 ? -this.kernel.libc.errno() : result
  }
  receive() {
    return this.receiveInto(buffer)
  }
  receiveInto(bytes: Uint8Array) {
    return this.tls === undefined
      ? this.checked(this.kernel.libc.read(this.fd, bytes, bytes.length))
      : this.tls.read(bytes)
  }
  send(bytes: Uint8Array) {
    return this.tls === undefined
      ? this.checked(this.kernel.libc.write(this.fd, bytes, bytes.length))
      : this.tls.write(bytes)
  }
  halfClose() {
    return this.tls === undefined ? this.checked(this.kernel.libc.shutdown(this.fd)) : this.tls.end()
  }

  // Reading

  /** Reads once. Returns how many bytes are in `buffer`, 0 at the end of the peer, `undefined` when there is nothing or it failed. */
  readOnce(): number | undefined {
    if (this.ended) return 0
    return this.readable ? this.noteRead(this.receive()) : undefined
  }
  /** What `readOnce` would find. Consumes nothing. */
  look(): "Bytes" | "End" | "Failure" | undefined {
    if (this.fd < 0) return "Failure"
    if (this.putBack.length > 0) return "Bytes"
    const count = this.ended ? 0 : this.readable ? this.noteRead(this.peekOnce()) : undefined
    if (count === undefined) return this.errno === 0 ? undefined : "Failure"
    // A TLS session can only look by reading.
    if (count > 0 && this.tls !== undefined) this.putBack.push(buffer.slice(0, count))
    return count === 0 ? "End" : "Bytes"
  }
  peekOnce() {
    return this.tls === undefined ? this.checked(this.kernel.sockets.peek(this.fd, buffer, 1)) : this.receive()
  }
  noteRead(count: number): number | undefined {
    if (count > 0) return count
    if (count === 0) {
      // The system reports an error once. After it every read looks like an end.
      if (this.errno !== 0) return undefined
      this.ended = true
      return 0
    }
    if (isRetryable(-count)) this.readable = false
    else this.errno = -count
    return undefined
  }

  // Writing

  /** Whether writes wait in this process. */
  isFull() {
    return this.pending.length > 0 || this.tls?.isWaiting() === true
  }
  /** Gives the kernel as much of the pending writes as it takes. */
  flush() {
    if (this.fd < 0 || this.errno !== 0) return
    const { pending, tls } = this
    for (let [first] = pending; first !== undefined; [first] = pending) {
      const written = this.send(first)
      if (written < 0) return this.noteFailure(-written)
      if (written === first.length) pending.shift()
      else if (written > 0) pending[0] = first.subarray(written)
      // TLS reports a full kernel by a short write, not by an errno.
      if (written < first.length && tls !== undefined) return
    }
    const flushed = tls?.flush() ?? 0
    if (flushed < 0) this.noteFailure(-flushed)
  }
  noteFailure(errno: number) {
    if (!isRetryable(errno)) this.errno = errno
  }

  setLiveness(state: "idle" | "carrying") {
    if (this.fd >= 0) Sockets.setLiveness(this.kernel.sockets, this.fd, state)
  }

  // Closing and detaching

  close() {
    if (this.successor !== undefined) return this.successor.close()
    // Without a `close_notify` the peer takes the end for a reset.
    if (this.fd >= 0 && !this.finished && this.errno === 0) this.tls?.end()
    if (this.fd >= 0) this.kernel.sockets.endOnClose(this.fd)
    this.closeDescriptor()
  }
  resetNow() {
    if (this.successor !== undefined) return this.successor.reset()
    if (this.fd >= 0) this.kernel.sockets.resetOnClose(this.fd)
    this.closeDescriptor()
  }
  closeDescriptor() {
    const { fd } = this
    if (fd < 0) return
    this.fd = -1
    this.kernel.poller.forget(fd)
    this.tls?.free()
    this.kernel.libc.close(fd)
    this.notify()
  }
  takeDescriptor() {
    if (this.fd >= 0) this.name = this.local
    const { fd } = this
    this.fd = -1
    return fd
  }
  notify() {
    this.onReadable?.()
    this.onWritable?.()
    this.user?.becameReadable()
    this.user?.becameWritable()
  }

  /** Whether the socket is open, and no write and no half-close waits in this process. */
  canDetach() {
    return this.fd >= 0 && this.errno === 0 && !this.finished && this.pending.length === 0
  }
  /** Takes the descriptor back, which nothing else uses any more, still watched by the poller. */
  reattach({ buffered, descriptor, done = false }: DetachedSocket) {
    this.successor = undefined
    this.fd = descriptor
    this.ended = done
    // The poller may have reported both meanwhile, which it does once.
    this.readable = true
    this.hungUp = true
    if (buffered.length > 0) this.putBack.push(buffered)
    this.kernel.poller.setHandler(descriptor, this)
  }
  /** Gives the descriptor away, once, still watched by the poller. For its users this socket is closed from now on. */
  detach(successor?: Successor): DetachedSocket {
    this.successor = successor
    const detached = {
      descriptor: this.takeDescriptor(),
      buffered: joined(this.putBack.splice(0).toReversed()),
      tls: this.tls?.detach()
    }
    this.notify()
    return detached
  }
}

/** What `readOnce` has read. All sockets share it: a caller copies the bytes out at once. */
export const buffer = new Uint8Array(64 * 1024)

// internal

/** The local address of a socket that was closed before anybody asked. */
const unknownAddress = Address.make("", 0)

const nameBuffer = new Uint8Array(SocketAddress.maxBytes)

/** Copies: a view would send the whole buffer that it is part of to another thread. */
const joined = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
