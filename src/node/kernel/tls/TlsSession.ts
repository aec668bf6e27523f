/**
 * TLS 1.3 on one descriptor: plain functions that never wait.
 *
 * It is in the hands of one thread at a time, that of its `Wire`. Between two calls its records are in the kernel, but for those
 * that came in one piece with others, of which `isAhead` tells, and those that the kernel had no room for, of which `isWaiting` does.
 */
import { constants } from "node:os"
import * as TlsWire from "./TlsWire.js"

/** What a session is while no thread has it. Whoever has this frees it, or makes a session of it. */
export interface Rest {
  /** OpenSSL's object. */
  readonly session: bigint
  /** Records that were received and not read. */
  readonly received: Uint8Array
  /** Records that were written and not sent. */
  readonly unsent: Uint8Array
}

/** Where a handshake stands; in the end it is done, or the peer has ended, or it failed for a reason, or with an errno below zero. */
export type Progress = "Done" | "WantRead" | "WantWrite" | "Ended" | { readonly reason: string } | number

export interface TlsSession {
  /** Goes as far as it can now. Having failed, a session has told its peer why, and is fit to be freed. */
  readonly handshake: () => Progress
  /**
   * Reads plain text into a buffer of 32 KiB at least: its bytes, 0 once the peer has said that it ends, or the negative errno.
   *
   * `EAGAIN` when there is nothing now. A descriptor that ends before the peer has said so was cut off: `ECONNRESET`.
   */
  readonly read: (bytes: Uint8Array) => number
  /** Whether `read` may have something to say that epoll does not know of. */
  readonly isAhead: () => boolean
  /** Writes plain text: the bytes taken, fewer than all where the kernel is full, or the negative errno. */
  readonly write: (bytes: Uint8Array) => number
  /** Says that we end, and half-closes the descriptor; 0, or the negative errno: `EAGAIN` when it is to be called again. */
  readonly end: () => number
  /** Whether records wait for the kernel to take them, and how many bytes of them. */
  readonly isWaiting: () => boolean
  readonly unsent: () => number
  /** Sends what waits; 0, or the negative errno: `EAGAIN` when some still waits. */
  readonly flush: () => number
  /** OpenSSL's object: for who looks at the peer. */
  readonly session: bigint
  /** Lets go of it, for another thread to take up. */
  readonly rest: () => Rest
  /** Frees it, once. To close the descriptor is its owner's. */
  readonly free: () => void
}

/** Takes up a session that no thread has. */
export const make = (
  wire: TlsWire.Wire,
  fd: number,
  { received: ahead, session, unsent: waiting }: Rest
): TlsSession => {
  const { libc, openSsl } = wire
  let received = ahead
  let unsent = waiting
  /** What every `read` says from now on. */
  let last: number | undefined
  let closing: "No" | "Said" | "Done" = "No"
  let held = true
  wire.attach(session)

  const failed = (reason: string): number => (/\balert\b/.test(reason) ? -ECONNRESET : -EPROTO)

  /** Brings records to the session, those that came first before others: their bytes, 0 at the end, or the negative errno. */
  const feed = (limit: number): number => {
    if (received.length === 0) return wire.receive(fd, limit)
    const piece = received.subarray(0, limit)
    received = piece.length === received.length ? TlsWire.none : received.subarray(limit)
    wire.bring(piece)
    return piece.length
  }
  const takeBack = () => {
    if (!wire.isRead()) received = joined(wire.takeBack(), received)
  }
  const send = (): number => {
    if (!wire.isWritten()) return 0
    if (unsent.length > 0) unsent = joined(unsent, wire.takeWritten())
    else {
      const left = wire.send(fd)
      if (typeof left === "number") return left
      unsent = left
    }
    return unsent.length > 0 ? -EAGAIN : 0
  }
  const flush = (): number => {
    if (unsent.length === 0) return 0
    const written = libc.write(fd, unsent, unsent.length)
    if (written < 0) return -libc.errno()
    unsent = written === unsent.length ? TlsWire.none : unsent.subarray(written)
    return unsent.length > 0 ? -EAGAIN : 0
  }

  const handshake = (): Progress => {
    for (;;) {
      const flushed = flush()
      if (flushed < 0) return flushed === -EAGAIN ? "WantWrite" : flushed
      openSsl.settle()
      const result = openSsl.handshake(session)
      const stop = result === 1 ? undefined : openSsl.stop(session, result)
      takeBack()
      const sent = send()
      if (stop?._tag === "Failed") {
        last = failed(stop.reason)
        return { reason: stop.reason }
      }
      if (stop?._tag === "Ended") return "Ended"
      if (sent < 0) return sent === -EAGAIN ? "WantWrite" : sent
      if (stop === undefined) return "Done"
      const fed = feed(TlsWire.room)
      if (fed === 0) return "Ended"
      if (fed < 0) return fed === -EAGAIN ? "WantRead" : fed
    }
  }

  const decrypt = (bytes: Uint8Array): number => {
    let total = 0
    while (total < bytes.length) {
      const read = openSsl.read(session, total === 0 ? bytes : bytes.subarray(total), bytes.length - total)
      if (read <= 0) {
        const stop = openSsl.stop(session, read)
        if (stop._tag === "Ended") last = 0
        else if (stop._tag === "Failed") last = failed(stop.reason)
        break
      }
      total += read
      if (wire.isRead()) break
    }
    return total
  }
  const read = (bytes: Uint8Array): number => {
    // Part of a record may be in the session already: what comes out is longer than what goes in by less than that.
    const limit = Math.min(bytes.length - record, TlsWire.room)
    for (;;) {
      if (last !== undefined) return last
      openSsl.settle()
      const fromMemory = received.length > 0
      const fed = feed(limit)
      if (fed === -EAGAIN) return fed
      if (fed < 0) return (last = fed)
      if (fed === 0) {
        // To whoever had it before, the peer may have said that it ends.
        decrypt(bytes)
        return (last ??= -ECONNRESET)
      }
      const total = decrypt(bytes)
      takeBack()
      // An answer that cannot be sent is no matter: what comes of it will be read.
      send()
      if (total > 0) return total
      if (last === undefined && !fromMemory && fed < limit) return -EAGAIN
    }
  }

  const write = (bytes: Uint8Array): number => {
    if (closing !== "No") return -EPIPE
    const flushed = flush()
    if (flushed < 0) return flushed === -EAGAIN ? 0 : flushed
    openSsl.settle()
    let total = 0
    while (total < bytes.length && unsent.length === 0) {
      const piece = total === 0 && bytes.length <= text ? bytes : bytes.subarray(total, total + text)
      const written = openSsl.write(session, piece, piece.length)
      if (written <= 0) {
        const stop = openSsl.stop(session, written)
        return stop._tag === "Failed" ? failed(stop.reason) : -EPROTO
      }
      total += written
      const sent = send()
      if (sent < 0 && sent !== -EAGAIN) return sent
    }
    return total
  }
  const end = (): number => {
    if (closing === "Done") return 0
    if (closing === "No") {
      closing = "Said"
      openSsl.settle()
      const said = openSsl.shutdown(session)
      if (said < 0) openSsl.stop(session, said)
      send()
    }
    const flushed = flush()
    if (flushed < 0) return flushed
    closing = "Done"
    return libc.shutdown(fd) < 0 ? -libc.errno() : 0
  }

  const letGo = () => {
    held = false
    wire.detach(session)
  }
  return {
    handshake,
    read,
    isAhead: () => received.length > 0 || last !== undefined,
    write,
    end,
    isWaiting: () => unsent.length > 0,
    unsent: () => unsent.length,
    flush,
    session,
    rest: () => {
      letGo()
      // In memory of their own: a thread would be sent all of that which they are part of.
      return { session, received: received.slice(), unsent: unsent.slice() }
    },
    free: () => {
      if (!held) return
      letGo()
      openSsl.freeSession(session)
    }
  }
}

// internal

const { EAGAIN, ECONNRESET, EPIPE, EPROTO } = constants.errno

/** Bytes of plain text in a record, at most. */
const record = 16 * 1024

/** Bytes of plain text that are written at once: their records are less than the wire has room for. */
const text = 128 * 1024

const joined = (first: Uint8Array, second: Uint8Array): Uint8Array => {
  if (second.length === 0) return first
  const both = new Uint8Array(first.length + second.length)
  both.set(first)
  both.set(second, first.length)
  return both
}
