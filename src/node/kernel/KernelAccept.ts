/**
 * Accepts from listening descriptors what may be accepted now. Peers that are not admitted are reset at once.
 */
import type * as Arr from "effect/Array"
import * as Address from "../../core/Address.js"
import type { ListenOptions } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import { isRetryable } from "./ffi/Libc.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"

/** The port on one address. */
export interface Port {
  readonly address: Address.Address
  /** Below zero once it is closed. */
  fd: number
  /** Connections may wait in its backlog. */
  isReady: boolean
}

export interface Acceptance {
  /** The lowest descriptor that this port leaves to others. */
  readonly firstReserved: number
  readonly admit: ListenOptions["admit"]
  readonly screen: ListenOptions["screen"]
}

/** What `accept` found: a connection, or why there is none now. `Turn`: the other ports are to have their turn first. */
export type Found =
  | { readonly _tag: "Connection"; readonly connection: KernelConnection.SocketConnection }
  | { readonly _tag: "Exhausted"; readonly reason: string }
  | { readonly _tag: "None" }
  | { readonly _tag: "Turn" }

export const [none, turn]: [Found, Found] = [{ _tag: "None" }, { _tag: "Turn" }]

/** Accepts at once, or returns why not. */
export const make = (kernel: Kernel, ports: Arr.NonEmptyArray<Port>, { admit, firstReserved, screen }: Acceptance) => {
  const { libc, sockets } = kernel
  const peer = new Uint8Array(SocketAddress.maxBytes)
  const found = ({ address }: Port, fd: number, remote: Address.Address): Found => {
    lastFd = fd
    const connection = KernelConnection.make(kernel, fd, remote)
    // Of a wildcard the system says which address it is.
    if (!Address.isWildcard(address)) connection.name = address
    return { _tag: "Connection", connection }
  }
  /** The descriptor of the last connection: all below were in use. */
  let lastFd = 0
  let sinceLook = 0
  /** Whether few descriptors are left. Looks only where that may be: a look takes two system calls. */
  const isScarce = (fd: number): boolean => {
    if (lastFd + lookMargin < firstReserved && ++sinceLook < lookMargin / 2) return false
    sinceLook = 0
    lastFd = libc.lowestUnused(fd)
    return lastFd >= firstReserved
  }
  const first = new Uint8Array(screenedBytes)
  const passes = (fd: number, remote: Address.Address): boolean => {
    const count = screen === undefined ? 0 : sockets.peek(fd, first, first.length)
    return count <= 0 || screen?.(first.subarray(0, count), remote) !== false
  }
  let takenThisTurn = 0
  let resetThisTurn = 0
  let lastIndex = 0
  /** A port that may have a connection, beginning behind the one that was used last. */
  const nextPort = () => {
    for (let step = 1; step <= ports.length; step++) {
      const index = (lastIndex + step) % ports.length
      const port = ports[index]
      if (port === undefined || !port.isReady || port.fd < 0) continue
      lastIndex = index
      return port
    }
    return undefined
  }
  const accept = (): Found => {
    for (;;) {
      if (takenThisTurn >= admissionsPerTurn) return turn
      const port = nextPort()
      if (port === undefined) return none
      if (Number.isFinite(firstReserved) && isScarce(port.fd)) {
        return { _tag: "Exhausted", reason: "few file descriptors are left (EMFILE)" }
      }
      const fd = sockets.accept(port.fd, peer)
      if (fd < 0) {
        const errno = sockets.errno()
        if (isRetryable(errno)) port.isReady = false
        else if (!Sockets.isConnectionError(errno)) return { _tag: "Exhausted", reason: Errno.nameOf(errno) }
        continue
      }
      const remote = SocketAddress.decode(peer)
      if (admit === undefined) return found(port, fd, remote)
      takenThisTurn++
      if (admit(remote) && passes(fd, remote)) return found(port, fd, remote)
      // A reset: the descriptor has this option from its listener.
      libc.close(fd)
      resetThisTurn++
    }
  }
  return {
    accept,
    hasReset: () => resetThisTurn > 0,
    nextTurn: () => {
      takenThisTurn = 0
      resetThisTurn = 0
    }
  }
}

// internal

/** Connections that a port with `admit` takes from its backlog until the other ports had their turn. */
const admissionsPerTurn = 32
/** First bytes that `screen` is shown, at most. */
const screenedBytes = 64
/** Descriptors that this process may open between two looks at how many are left: each visitor takes two at most. */
const lookMargin = 256
