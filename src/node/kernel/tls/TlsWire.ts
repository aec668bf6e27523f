/**
 * Where the TLS sessions of one thread read their records from and write them to: memory between OpenSSL and descriptors.
 *
 * It serves one session at a time and is empty in between. So an idle session costs no buffer, epoll knows all there is to
 * know of a descriptor, and 64 KiB are one system call, not one for each record of 16 KiB: 0.54 s and not 0.78 for a GiB.
 */
import { constants } from "node:os"
import type { Libc } from "../ffi/Libc.js"
import type { OpenSsl } from "./OpenSsl.js"

export interface Wire {
  readonly openSsl: OpenSsl
  readonly libc: Libc
  readonly attach: (session: bigint) => void
  readonly detach: (session: bigint) => void
  /** Sessions that are attached. */
  readonly attached: () => number
  /** Brings what a descriptor has, `room` at most: its bytes, 0 at its end, below zero the negative errno. */
  readonly receive: (fd: number, limit: number) => number
  /** Brings these, `room` at most. */
  readonly bring: (bytes: Uint8Array) => void
  /** Whether the session has taken all that was brought. */
  readonly isRead: () => boolean
  /** Takes back what the session has not taken. */
  readonly takeBack: () => Uint8Array
  /** Whether the session has written something. */
  readonly isWritten: () => boolean
  /** Sends what the session has written: what did not go, or the negative errno. */
  readonly send: (fd: number) => Uint8Array | number
  /** Takes what the session has written. */
  readonly takeWritten: () => Uint8Array
  /** What a thread that died would leave behind. */
  readonly halves: readonly [bigint, bigint]
  /** Frees it, no session being attached. */
  readonly free: () => void
}

/** Bytes of records that it holds, each way. */
export const room = 256 * 1024

export const none = new Uint8Array(0)

export const make = (openSsl: OpenSsl, libc: Libc): Wire => {
  const halves = openSsl.pair(room)
  const [half, own] = halves
  const buffer = new Uint8Array(room)
  let attached = 0
  const taken = (from: bigint): Uint8Array => {
    const count = openSsl.take(from, buffer, room)
    return count > 0 ? buffer.slice(0, count) : none
  }
  return {
    openSsl,
    libc,
    attach: (session) => {
      openSsl.attach(session, half)
      attached++
    },
    detach: (session) => {
      openSsl.attach(session, undefined)
      attached--
    },
    attached: () => attached,
    receive: (fd, limit) => {
      const read = libc.read(fd, buffer, limit)
      if (read < 0) return -libc.errno()
      if (read > 0) openSsl.put(own, buffer, read)
      return read
    },
    bring: (bytes) => void openSsl.put(own, bytes, bytes.length),
    isRead: () => openSsl.waiting(half) === 0,
    takeBack: () => taken(half),
    isWritten: () => openSsl.waiting(own) > 0,
    send: (fd) => {
      const count = openSsl.take(own, buffer, room)
      if (count <= 0) return none
      const written = libc.write(fd, buffer, count)
      if (written === count) return none
      if (written >= 0) return buffer.slice(written, count)
      const errno = libc.errno()
      return errno === EAGAIN ? buffer.slice(0, count) : -errno
    },
    takeWritten: () => taken(own),
    halves,
    free: () => {
      openSsl.freeHalf(half)
      openSsl.freeHalf(own)
    }
  }
}

// internal

const { EAGAIN } = constants.errno
