/**
 * What TCP connections ask of the system by themselves: the socket calls of the C library, over koffi.
 *
 * No call blocks. A result below zero is a failure that `errno` names, asked at once.
 */
import { constants } from "node:os"
import * as SocketAddress from "./SocketAddress.js"

export interface Sockets {
  /** A socket that does not block and that programs started later do not inherit. */
  readonly open: (family: 4 | 6) => number
  /** The same for datagrams. */
  readonly openDatagram: (family: 4 | 6) => number
  readonly bind: (fd: number, address: Uint8Array) => number
  readonly listen: (fd: number, backlog: number) => number
  /** The next connection; `from` is filled with whose it is. */
  readonly accept: (fd: number, from: Uint8Array) => number
  /** Begins, or asks how it went: `EISCONN` is success. */
  readonly connect: (fd: number, address: Uint8Array) => number
  /** Fills in the address of our side. */
  readonly nameOf: (fd: number, name: Uint8Array) => number
  /** What has come, without taking it. */
  readonly peek: (fd: number, bytes: Uint8Array, count: number) => number
  readonly set: (fd: number, option: Option, value: number) => number
  /** Has the system drop the connection when it closes it, unless `Libc.settle` is called before. */
  readonly lingerNothing: (fd: number) => number
  readonly setText: (fd: number, option: Option, value: string) => number
  /** Fills in as much of the value as there is room for. */
  readonly get: (fd: number, option: Option, value: Uint8Array) => number
  readonly errno: () => number
}

/** Level and name of a socket option. */
export type Option = readonly [level: number, name: number]

const [socketLevel, tcpLevel, ipv6Level] = [1, 6, 41]

/** The numbers of Linux, the same on x64 and arm64. */
export const options = {
  reuseAddress: [socketLevel, 2],
  sendBuffer: [socketLevel, 7],
  receiveBuffer: [socketLevel, 8],
  keepAlive: [socketLevel, 9],
  noDelay: [tcpLevel, 1],
  keepIdle: [tcpLevel, 4],
  info: [tcpLevel, 11],
  congestion: [tcpLevel, 13],
  userTimeout: [tcpLevel, 18],
  onlyIPv6: [ipv6Level, 26]
} satisfies Record<string, Option>

/** Fails where koffi, or the C library it is to load, is not there. */
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
  const room = (address: Uint8Array) => {
    length[0] = address.length
    return length
  }
  const value = new Int32Array(1)
  const valueBytes = new Uint8Array(value.buffer)
  return {
    open: (family) => socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    openDatagram: (family) => socket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    bind: (fd, address) => bind(fd, address, address.length),
    listen,
    accept: (fd, from) => accept4(fd, from, room(from), SOCK_NONBLOCK | SOCK_CLOEXEC),
    connect: (fd, address) => connect(fd, address, address.length),
    nameOf: (fd, name) => getsockname(fd, name, room(name)),
    peek: (fd, bytes, count) => recv(fd, bytes, count, MSG_PEEK),
    set: (fd, [level, name], number) => {
      value[0] = number
      return setsockopt(fd, level, name, valueBytes, valueBytes.length)
    },
    lingerNothing: (fd) => setsockopt(fd, socketLevel, SO_LINGER, onForNoTime, onForNoTime.length),
    setText: (fd, [level, name], text) => {
      const bytes = new TextEncoder().encode(text)
      return setsockopt(fd, level, name, bytes, bytes.length)
    },
    get: (fd, [level, name], value) => getsockopt(fd, level, name, value, room(value)),
    errno: () => koffi.errno()
  }
}

/** Whether a call to accept failed because of what happened to one connection, and the next one may be well. */
export const isPassing = (errno: number): boolean => passing.has(errno)

/** What every socket is opened with; accepted ones have it from their listener. */
export const tune = (sockets: Sockets, fd: number): void => {
  sockets.set(fd, options.noDelay, 1)
  sockets.set(fd, options.keepAlive, 1)
  sockets.set(fd, options.keepIdle, keepIdle)
  // Should this process be killed, its peers see a reset: an end would look like all that there was to say.
  sockets.lingerNothing(fd)
}

// internal

/** Seconds of silence after which the kernel asks whether a peer is there. */
const keepIdle = 30

const SO_LINGER = 13
const onForNoTime = new Uint8Array(new Int32Array([1, 0]).buffer)
const { AF_INET, AF_INET6 } = SocketAddress.families
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const MSG_PEEK = 2

const { ECONNABORTED, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPROTO } = constants.errno
// accept(2): errors that are pending on the new socket are told by the call.
const passing: ReadonlySet<number> = new Set([
  ECONNABORTED,
  EHOSTUNREACH,
  EINTR,
  ENETDOWN,
  ENETUNREACH,
  ENOPROTOOPT,
  EOPNOTSUPP,
  EPROTO
])
