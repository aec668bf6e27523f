/**
 * TLS 1.3 on one descriptor: plain functions that never wait.
 *
 * One thread uses a session at a time, the thread of its `Wire`. Between two calls the records of the session are in the
 * kernel. There are two exceptions: received records that came together with others, see `hasBuffered`, and written records
 * that the kernel had no room for, see `isWaiting`.
 */
import { constants } from "node:os"
import * as TlsWire from "./TlsWire.js"

/** A session that no thread uses. Its holder frees it, or makes a `TlsSession` of it. */
export interface DetachedSession {
  /** OpenSSL's object. */
  readonly session: bigint
  /** Records that were received and not read. */
  readonly received: Uint8Array
  /** Records that were written and not sent. */
  readonly unsent: Uint8Array
}

/** Where a handshake stands. It is done, it waits, the peer has ended, or it failed with a reason or a negative errno. */
export type Progress = "Done" | "WantRead" | "WantWrite" | "Ended" | { readonly reason: string } | number

export interface TlsSession {
  /** Continues the handshake as far as it can now. When it fails, the alert for the peer is written, and the caller frees the session. */
  readonly handshake: () => Progress
  /**
   * Reads plain text into a buffer of at least 32 KiB. Returns how many bytes, 0 after the `close_notify` of the peer, or the
   * negative errno.
   *
   * `EAGAIN` when there is nothing now. A descriptor that ends without a `close_notify` was cut off: `ECONNRESET`.
   */
  readonly read: (bytes: Uint8Array) => number
  /** Whether `read` may return something that epoll does not report. */
  readonly hasBuffered: () => boolean
  /** Writes plain text. Returns how many bytes were taken, fewer than all when the kernel is full, or the negative errno. */
  readonly write: (bytes: Uint8Array) => number
  /** Writes `close_notify` and half-closes the descriptor. Returns 0, or the negative errno: after `EAGAIN` call it again. */
  readonly end: () => number
  /** Whether records wait for the kernel to take them. */
  readonly isWaiting: () => boolean
  /** Bytes of the records that wait. */
  readonly unsent: () => number
  /** Sends the records that wait. Returns 0, or the negative errno: `EAGAIN` when some still wait. */
  readonly flush: () => number
  /** OpenSSL's object, to look at the certificate of the peer. */
  readonly session: bigint
  /** Detaches the session from this thread, for another one. This object must not be used afterwards. */
  readonly detach: () => DetachedSession
  /** Frees the session. Does nothing when it was freed or detached. The descriptor stays open. */
  readonly free: () => void
}

/** Attaches a session to the thread of the wire. */
export const make = (wire: TlsWire.Wire, fd: number, detached: DetachedSession): TlsSession =>
  new Session(wire, fd, detached)

// internal

/** A class, since there are many sessions, and closures for each method would take most of the memory. */
class Session implements TlsSession {
  readonly wire: TlsWire.Wire
  readonly fd: number
  readonly session: bigint
  /** Records that are fed before those of the descriptor. */
  received: Uint8Array
  /** Records that wait for the kernel. */
  waiting: Uint8Array
  /** What every `read` returns from now on. */
  finalRead: number | undefined
  endState: "Open" | "AlertWritten" | "HalfClosed" = "Open"
  isAttached = true

  constructor(wire: TlsWire.Wire, fd: number, { received, session, unsent }: DetachedSession) {
    this.wire = wire
    this.fd = fd
    this.session = session
    this.received = received
    this.waiting = unsent
    wire.attach(session)
  }

  // Records

  /** Feeds records to the session, those received earlier first. Returns how many bytes, 0 at the end, or the negative errno. */
  feed(limit: number): number {
    const { received } = this
    if (received.length === 0) return this.wire.receive(this.fd, limit)
    const piece = received.subarray(0, limit)
    this.received = piece.length === received.length ? TlsWire.noBytes : received.subarray(limit)
    this.wire.feed(piece)
    return piece.length
  }
  reclaim() {
    if (!this.wire.isConsumed()) this.received = joined(this.wire.reclaim(), this.received)
  }
  /** Sends the output of the session, behind records that wait. */
  send(): number {
    const { wire } = this
    if (!wire.hasOutput()) return 0
    if (this.waiting.length > 0) this.waiting = joined(this.waiting, wire.takeOutput())
    else {
      const unsent = wire.send(this.fd)
      if (typeof unsent === "number") return unsent
      this.waiting = unsent
    }
    return this.waiting.length > 0 ? -EAGAIN : 0
  }
  isWaiting() {
    return this.waiting.length > 0
  }
  unsent() {
    return this.waiting.length
  }
  flush(): number {
    const { fd, waiting, wire } = this
    if (waiting.length === 0) return 0
    const written = wire.libc.write(fd, waiting, waiting.length)
    if (written < 0) return -wire.libc.errno()
    this.waiting = written === waiting.length ? TlsWire.noBytes : waiting.subarray(written)
    return this.waiting.length > 0 ? -EAGAIN : 0
  }

  // Handshake

  handshake(): Progress {
    const { session, wire } = this
    for (;;) {
      const flushed = this.flush()
      if (flushed < 0) return flushed === -EAGAIN ? "WantWrite" : flushed
      wire.openSsl.clearErrors()
      const result = wire.openSsl.handshake(session)
      const error = result === 1 ? undefined : wire.openSsl.getError(session, result)
      this.reclaim()
      const sent = this.send()
      if (error?._tag === "Failed") {
        this.finalRead = errnoOf(error.reason)
        return { reason: error.reason }
      }
      if (error?._tag === "Ended") return "Ended"
      if (sent < 0) return sent === -EAGAIN ? "WantWrite" : sent
      if (error === undefined) return "Done"
      const fed = this.feed(TlsWire.capacity)
      if (fed === 0) return "Ended"
      if (fed < 0) return fed === -EAGAIN ? "WantRead" : fed
    }
  }

  // Reading

  read(bytes: Uint8Array): number {
    // OpenSSL may already have part of a record, so the plain text may be longer than what is fed now: by less than a record.
    const limit = Math.min(bytes.length - recordSize, TlsWire.capacity)
    for (;;) {
      if (this.finalRead !== undefined) return this.finalRead
      this.wire.openSsl.clearErrors()
      const isFromMemory = this.received.length > 0
      const fed = this.feed(limit)
      if (fed === -EAGAIN) return fed
      if (fed < 0) return (this.finalRead = fed)
      if (fed === 0) {
        // The previous thread may have read the `close_notify` of the peer.
        this.decrypt(bytes)
        return (this.finalRead ??= -ECONNRESET)
      }
      const total = this.decrypt(bytes)
      this.reclaim()
      // For a key update. If it cannot be sent, a later read reports why.
      this.send()
      if (total > 0) return total
      if (this.finalRead === undefined && !isFromMemory && fed < limit) return -EAGAIN
    }
  }
  decrypt(bytes: Uint8Array): number {
    const { session, wire } = this
    let total = 0
    while (total < bytes.length) {
      const read = wire.openSsl.read(session, total === 0 ? bytes : bytes.subarray(total), bytes.length - total)
      if (read <= 0) {
        const error = wire.openSsl.getError(session, read)
        if (error._tag === "Ended") this.finalRead = 0
        else if (error._tag === "Failed") this.finalRead = errnoOf(error.reason)
        break
      }
      total += read
      if (wire.isConsumed()) break
    }
    return total
  }
  hasBuffered() {
    return this.received.length > 0 || this.finalRead !== undefined
  }

  // Writing

  write(bytes: Uint8Array): number {
    const { session, wire } = this
    if (this.endState !== "Open") return -EPIPE
    const flushed = this.flush()
    if (flushed < 0) return flushed === -EAGAIN ? 0 : flushed
    wire.openSsl.clearErrors()
    let total = 0
    while (total < bytes.length && this.waiting.length === 0) {
      const piece = total === 0 && bytes.length <= pieceSize ? bytes : bytes.subarray(total, total + pieceSize)
      const written = wire.openSsl.write(session, piece, piece.length)
      if (written <= 0) {
        const error = wire.openSsl.getError(session, written)
        return error._tag === "Failed" ? errnoOf(error.reason) : -EPROTO
      }
      total += written
      const sent = this.send()
      if (sent < 0 && sent !== -EAGAIN) return sent
    }
    return total
  }
  end(): number {
    const { fd, session, wire } = this
    if (this.endState === "HalfClosed") return 0
    if (this.endState === "Open") {
      this.endState = "AlertWritten"
      wire.openSsl.clearErrors()
      const result = wire.openSsl.shutdown(session)
      if (result < 0) wire.openSsl.getError(session, result)
      this.send()
    }
    const flushed = this.flush()
    if (flushed < 0) return flushed
    this.endState = "HalfClosed"
    return wire.libc.shutdown(fd) < 0 ? -wire.libc.errno() : 0
  }

  // Ownership

  detach(): DetachedSession {
    this.leaveWire()
    // Copies: a view would send the whole buffer that it is part of to the other thread.
    return { session: this.session, received: this.received.slice(), unsent: this.waiting.slice() }
  }
  free() {
    if (!this.isAttached) return
    this.leaveWire()
    this.wire.openSsl.freeSession(this.session)
  }
  leaveWire() {
    this.isAttached = false
    this.wire.detach(this.session)
  }
}

const { EAGAIN, ECONNRESET, EPIPE, EPROTO } = constants.errno

/** The negative errno for a failure of OpenSSL: an alert of the peer is a reset, all else is a protocol error. */
const errnoOf = (reason: string): number => (/\balert\b/.test(reason) ? -ECONNRESET : -EPROTO)

/** Bytes of plain text in a record, at most. */
const recordSize = 16 * 1024

/** Bytes of plain text written at once. Their records fit the wire. */
const pieceSize = 128 * 1024

const joined = (first: Uint8Array, second: Uint8Array): Uint8Array => {
  if (second.length === 0) return first
  const both = new Uint8Array(first.length + second.length)
  both.set(first)
  both.set(second, first.length)
  return both
}
