/**
 * The buffers between OpenSSL and descriptors, shared by all TLS sessions of a thread: one BIO pair.
 *
 * The wire serves one session at a time and is empty between two calls on a session. So an idle session costs no buffer, and
 * epoll reports all data of a descriptor. 64 KiB take one system call, instead of one for each record of 16 KiB: a GiB takes
 * 0.54 s instead of 0.78 s.
 */
import { constants } from "node:os"
import type { Libc } from "../ffi/Libc.js"
import type { OpenSsl } from "./OpenSsl.js"

export interface Wire {
  readonly openSsl: OpenSsl
  readonly libc: Libc
  readonly attach: (session: bigint) => void
  readonly detach: (session: bigint) => void
  /** How many sessions are attached. */
  readonly attached: () => number

  // To the session

  /** Reads up to `limit` bytes from a descriptor for the session. Returns how many, 0 at the end, or the negative errno. */
  readonly receive: (fd: number, limit: number) => number
  /** Gives the session these bytes, at most `capacity`. */
  readonly feed: (bytes: Uint8Array) => void
  /** Whether the session has consumed all its bytes. */
  readonly isConsumed: () => boolean
  /** Takes back the bytes that the session has not consumed. */
  readonly reclaim: () => Uint8Array

  // From the session

  readonly hasOutput: () => boolean
  /** Writes the output of the session to a descriptor. Returns what the kernel did not take, or the negative errno. */
  readonly send: (fd: number) => Uint8Array | number
  readonly takeOutput: () => Uint8Array

  /** The BIO pair, for the owner of a thread that dies. */
  readonly bios: readonly [bigint, bigint]
  /** Frees the BIO pair. No session may be attached. */
  readonly free: () => void
}

/** Bytes that fit each way. */
export const capacity = 256 * 1024

export const noBytes = new Uint8Array(0)

export const make = (openSsl: OpenSsl, libc: Libc): Wire => {
  const bios = openSsl.newBioPair(capacity)
  const [sessionBio, ownBio] = bios
  const buffer = new Uint8Array(capacity)
  let attached = 0
  const takeAll = (bio: bigint): Uint8Array => {
    const count = openSsl.readBio(bio, buffer, capacity)
    return count > 0 ? buffer.slice(0, count) : noBytes
  }
  return {
    openSsl,
    libc,
    attach: (session) => {
      openSsl.attach(session, sessionBio)
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
      if (read > 0) openSsl.writeBio(ownBio, buffer, read)
      return read
    },
    feed: (bytes) => void openSsl.writeBio(ownBio, bytes, bytes.length),
    isConsumed: () => openSsl.pendingBytes(sessionBio) === 0,
    reclaim: () => takeAll(sessionBio),
    hasOutput: () => openSsl.pendingBytes(ownBio) > 0,
    send: (fd) => {
      const count = openSsl.readBio(ownBio, buffer, capacity)
      if (count <= 0) return noBytes
      const written = libc.write(fd, buffer, count)
      if (written === count) return noBytes
      if (written >= 0) return buffer.slice(written, count)
      const errno = libc.errno()
      return errno === EAGAIN ? buffer.slice(0, count) : -errno
    },
    takeOutput: () => takeAll(ownBio),
    bios,
    free: () => {
      openSsl.freeBio(sessionBio)
      openSsl.freeBio(ownBio)
    }
  }
}

// internal

const { EAGAIN } = constants.errno
