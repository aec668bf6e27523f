/**
 * Socket functions of the C library, called through koffi.
 *
 * No call blocks. A result below zero is a failure: read `errno` right after it, before any other call.
 */
import { constants } from "node:os"
import * as SocketAddress from "./SocketAddress.js"

export interface Sockets {
  /** Opens a TCP socket that does not block and that child processes do not inherit. */
  readonly open: (family: 4 | 6) => number
  /** The same for UDP. */
  readonly openDatagram: (family: 4 | 6) => number
  readonly bind: (fd: number, address: Uint8Array) => number
  readonly listen: (fd: number, backlog: number) => number
  /** Accepts the next connection, and fills in the address of its peer. */
  readonly accept: (fd: number, peer: Uint8Array) => number
  /** Begins to connect. Called again it reports the state: `EISCONN` is success. */
  readonly connect: (fd: number, address: Uint8Array) => number
  /** Fills in the local address. */
  readonly nameOf: (fd: number, name: Uint8Array) => number
  /** Copies received bytes and leaves them in the kernel. */
  readonly peek: (fd: number, bytes: Uint8Array, count: number) => number
  readonly set: (fd: number, option: Option, value: number) => number
  /** From now on closing the socket resets the connection, also when the process is killed. */
  readonly resetOnClose: (fd: number) => number
  /** From now on closing the socket sends what is queued, then an end. */
  readonly endOnClose: (fd: number) => number
  readonly setText: (fd: number, option: Option, value: string) => number
  /** Fills in as much of the value as fits. */
  readonly get: (fd: number, option: Option, value: Uint8Array) => number
  readonly errno: () => number
}

/** Level and name of a socket option. */
export type Option = readonly [level: number, name: number]

const [socketLevel, tcpLevel, ipv6Level] = [1, 6, 41]

/** Socket options of Linux, with the same numbers on x64 and arm64. */
export const options = {
  reuseAddress: [socketLevel, 2],
  sendBuffer: [socketLevel, 7],
  receiveBuffer: [socketLevel, 8],
  keepAlive: [socketLevel, 9],
  noDelay: [tcpLevel, 1],
  keepIdle: [tcpLevel, 4],
  keepInterval: [tcpLevel, 5],
  info: [tcpLevel, 11],
  congestion: [tcpLevel, 13],
  userTimeout: [tcpLevel, 18],
  notSentLowWater: [tcpLevel, 25],
  bufferLock: [socketLevel, 72],
  onlyIPv6: [ipv6Level, 26]
} satisfies Record<string, Option>

/** Fails when koffi is missing or cannot load the C library. */
export const load = async (): Promise<Sockets> => {
  const { default: koffi } = await import("koffi")
  const library = koffi.load(null)
  const socket: (family: number, type: number, protocol: number) => number = library.func("int socket(int, int, int)")
  const bind: (fd: number, address: Uint8Array, length: number) => number = library.func("int bind(int, void*, uint)")
  const listen: Sockets["listen"] = library.func("int listen(int, int)")
  const accept4: (fd: number, address: Uint8Array, length: Uint32Array, flags: number) => number = library.func(
    "int accept4(int, void*, void*, int)"
  )
  const connect: (fd: number, address: Uint8Array, length: number) => number = library.func(
    "int connect(int, void*, uint)"
  )
  const getsockname: (fd: number, address: Uint8Array, length: Uint32Array) => number = library.func(
    "int getsockname(int, void*, void*)"
  )
  const recv: (fd: number, bytes: Uint8Array, count: number, flags: number) => number = library.func(
    "long recv(int, void*, ulong, int)"
  )
  const setsockopt: (fd: number, level: number, name: number, value: Uint8Array, length: number) => number =
    library.func("int setsockopt(int, int, int, void*, uint)")
  const getsockopt: (fd: number, level: number, name: number, value: Uint8Array, length: Uint32Array) => number =
    library.func("int getsockopt(int, int, int, void*, void*)")

  const length = new Uint32Array(1)
  const lengthOf = (bytes: Uint8Array) => {
    length[0] = bytes.length
    return length
  }
  const value = new Int32Array(1)
  const valueBytes = new Uint8Array(value.buffer)
  return {
    open: (family) => socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    openDatagram: (family) => socket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    bind: (fd, address) => bind(fd, address, address.length),
    listen,
    accept: (fd, peer) => accept4(fd, peer, lengthOf(peer), SOCK_NONBLOCK | SOCK_CLOEXEC),
    connect: (fd, address) => connect(fd, address, address.length),
    nameOf: (fd, name) => getsockname(fd, name, lengthOf(name)),
    peek: (fd, bytes, count) => recv(fd, bytes, count, MSG_PEEK),
    set: (fd, [level, name], number) => {
      value[0] = number
      return setsockopt(fd, level, name, valueBytes, valueBytes.length)
    },
    resetOnClose: (fd) => setsockopt(fd, socketLevel, SO_LINGER, lingerZero, lingerZero.length),
    endOnClose: (fd) => setsockopt(fd, socketLevel, SO_LINGER, lingerOff, lingerOff.length),
    setText: (fd, [level, name], text) => {
      const bytes = new TextEncoder().encode(text)
      return setsockopt(fd, level, name, bytes, bytes.length)
    },
    get: (fd, [level, name], value) => getsockopt(fd, level, name, value, lengthOf(value)),
    errno: () => koffi.errno()
  }
}

/** Whether `accept` failed because of one connection only, so that the next one may succeed. */
export const isConnectionError = (errno: number): boolean => connectionErrors.has(errno)

/** Sets the options of every TCP socket. Accepted sockets inherit them from their listener. */
export const setDefaults = (sockets: Sockets, fd: number): void => {
  sockets.set(fd, options.noDelay, 1)
  sockets.set(fd, options.keepAlive, 1)
  sockets.set(fd, options.keepIdle, liveness.carrying.silence)
  sockets.set(fd, options.notSentLowWater, maxUnsentBytes)
  // When this process is killed its peers must see a reset. They would take an end for a complete transfer.
  sockets.resetOnClose(fd)
}

/**
 * How the kernel detects that the peer of a silent connection has vanished. `idle`: by keep-alive probes after 3, 5 and 7
 * seconds of silence, and by data that is not acknowledged; the connection breaks with `ETIMEDOUT` after 9 seconds.
 * `carrying`: after half a minute and nine probes, since a visitor may be silent, and a network may be away, for longer.
 */
export const setLiveness = (sockets: Sockets, fd: number, state: "idle" | "carrying"): void => {
  const { interval, silence, userTimeout } = liveness[state]
  sockets.set(fd, options.keepInterval, interval)
  sockets.set(fd, options.userTimeout, userTimeout)
  // Last: it sets the timer anew.
  sockets.set(fd, options.keepIdle, silence)
}

// internal

/**
 * Bytes that the kernel holds for a peer that does not take them, beside those on their way to it. By default it is all of
 * `tcp_wmem`, 4 MiB. Bulk costs as much CPU with 512 KiB, and 10 % more with 256 KiB.
 */
const maxUnsentBytes = 512 * 1024

/** Seconds of silence before the first keep-alive probe, and between two; and milliseconds until data must be acknowledged. */
const liveness = {
  idle: { silence: 3, interval: 2, userTimeout: 8000 },
  // The system's defaults, except for the first. A user timeout would break the connection of a peer that does not read.
  carrying: { silence: 30, interval: 75, userTimeout: 0 }
}

const SO_LINGER = 13
/** `struct linger`: on, with a timeout of zero. */
const lingerZero = new Uint8Array(new Int32Array([1, 0]).buffer)
const lingerOff = new Uint8Array(8)
const { AF_INET, AF_INET6 } = SocketAddress.families
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const MSG_PEEK = 2

const { ECONNABORTED, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPROTO } = constants.errno
// accept(2): the call also returns errors that are already pending on the new socket.
const connectionErrors: ReadonlySet<number> = new Set([
  ECONNABORTED,
  EHOSTUNREACH,
  EINTR,
  ENETDOWN,
  ENETUNREACH,
  ENOPROTOOPT,
  EOPNOTSUPP,
  EPROTO
])
