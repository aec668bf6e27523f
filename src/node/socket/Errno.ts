/**
 * Maps failed system calls to a `TransportError`: the kernel's sockets report an errno, Node's sockets an error code.
 */
import * as Predicate from "effect/Predicate"
import { getSystemErrorName } from "node:util"
import type * as Address from "../../core/Address.js"
import { type Reason, TransportError } from "../../transport/Transport.js"

/** The error for an errno, a number above zero. Its cause is the errno's name. */
export const fromErrno = (
  operation: TransportError["operation"],
  address: Address.Address,
  errno: number
): TransportError => {
  const cause = nameOf(errno)
  return new TransportError({ operation, address, reason: reasons[cause] ?? "Unknown", cause })
}

/** The error for what a socket or a look-up of Node failed with, by its `code`. */
export const fromNode = (
  operation: TransportError["operation"],
  address: Address.Address,
  cause: unknown
): TransportError => {
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  return new TransportError({ operation, address, reason: reasons[code] ?? "Unknown", cause })
}

/** The name of an errno, such as `ECONNRESET`. */
export const nameOf = (errno: number): string => (errno > 0 ? getSystemErrorName(-errno) : "UNKNOWN")

// internal

const reasons: Readonly<Record<string, Reason>> = {
  ECONNREFUSED: "Refused",
  EHOSTUNREACH: "Unreachable",
  EHOSTDOWN: "Unreachable",
  ENETUNREACH: "Unreachable",
  ENETDOWN: "Unreachable",
  ENODEV: "UnknownInterface",
  ENOTFOUND: "UnknownHost",
  EAI_AGAIN: "UnknownHost",
  ETIMEDOUT: "TimedOut",
  EADDRINUSE: "AddressInUse",
  EADDRNOTAVAIL: "AddressUnavailable",
  EAFNOSUPPORT: "AddressUnavailable",
  EACCES: "Forbidden",
  EPERM: "Forbidden",
  EMFILE: "Exhausted",
  ENFILE: "Exhausted",
  ENOMEM: "Exhausted",
  ENOBUFS: "Exhausted",
  ECONNRESET: "Reset",
  ECONNABORTED: "Reset",
  EPIPE: "Reset",
  ENOTCONN: "Closed",
  ERR_STREAM_DESTROYED: "Closed",
  ERR_SOCKET_CLOSED: "Closed"
}
