/**
 * A listening TCP port by its descriptor. Connections that no caller has accepted yet wait in the backlog of the kernel.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { constants } from "node:os"
import * as Address from "../../core/Address.js"
import type { Listener, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as NodeHosts from "../socket/NodeHosts.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import { isRetryable } from "./ffi/Libc.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"

/** See `Transport`. */
export const listen =
  (kernel: Kernel) =>
  (address: Address.Address): Effect.Effect<Listener, TransportError, Scope.Scope> =>
    candidatesFor(address).pipe(
      Effect.mapError((cause) => Errno.fromNode("listen", address, cause)),
      Effect.flatMap((candidates) =>
        Effect.acquireRelease(
          Effect.suspend(() => {
            let errno = EADDRNOTAVAIL
            for (const candidate of candidates) {
              const opened = open(kernel, candidate, address.port)
              if (opened.fd >= 0) return Effect.succeed(make(kernel, opened.fd))
              ;({ errno } = opened)
              if (errno !== EAFNOSUPPORT && errno !== EADDRNOTAVAIL) break
            }
            return Effect.fail(Errno.fromErrno("listen", address, errno))
          }),
          ({ close }) => Effect.sync(close)
        )
      ),
      Effect.map(({ listener }) => listener)
    )

// internal

const { EADDRNOTAVAIL, EAFNOSUPPORT } = constants.errno

/** Connections that can wait to be accepted. The system may have a lower limit. */
const backlog = 4096
/** Milliseconds until the next attempt to accept when the process is out of descriptors or memory. */
const exhaustedRetryMillis = 100

/** The addresses to try, in this order. */
const candidatesFor = (
  address: Address.Address
): Effect.Effect<ReadonlyArray<NodeHosts.IpAddress>, NodeJS.ErrnoException> => {
  if (!Address.isWildcard(address)) return Effect.map(NodeHosts.lookup(address.host), (found) => found.slice(0, 1))
  const ipv4: NodeHosts.IpAddress = { host: "0.0.0.0", family: 4 }
  // An IPv6 listener on `::` accepts both families. Without IPv6 the second one remains.
  return Effect.succeed(address.host === ipv4.host ? [ipv4] : [{ host: "::", family: 6 }, ipv4])
}

/** A listening descriptor, or -1 and why. */
const open = ({ libc, sockets }: Kernel, ipAddress: NodeHosts.IpAddress, port: number) => {
  const fd = sockets.open(ipAddress.family)
  if (fd < 0) return { fd, errno: sockets.errno() }
  const { onlyIPv6, reuseAddress } = Sockets.options
  Sockets.setDefaults(sockets, fd)
  sockets.set(fd, reuseAddress, 1)
  if (ipAddress.family === 6) sockets.set(fd, onlyIPv6, 0)
  const bound = sockets.bind(fd, SocketAddress.encode(ipAddress, port))
  if (bound >= 0 && sockets.listen(fd, backlog) >= 0) return { fd, errno: 0 }
  const errno = sockets.errno()
  libc.close(fd)
  return { fd: -1, errno }
}

const make = (kernel: Kernel, descriptor: number) => {
  const { libc, poller, sockets } = kernel
  let fd = descriptor
  let isReady = true
  let isExhausted = false
  const waiting = new Set<() => void>()
  poller.watch(fd, () => {
    isReady = true
    for (const wake of waiting) wake()
  })
  const close = () => {
    if (fd < 0) return
    poller.forget(fd)
    libc.close(fd)
    fd = -1
  }

  const arrival = Effect.async<void>((resume) => {
    if (isReady) return resume(Effect.void)
    const wake = () => {
      waiting.delete(wake)
      resume(Effect.void)
    }
    waiting.add(wake)
    return Effect.sync(() => waiting.delete(wake))
  })
  /** Logs the first failure in a row, and waits. Connections stay in the backlog meanwhile. */
  const pause = (errno: number) =>
    Effect.suspend(() => {
      const isLogged = isExhausted
      isExhausted = true
      return Effect.delay(
        Effect.unless(
          Effect.logWarning(
            `listener cannot accept visitors: ${Errno.nameOf(errno)}; retrying every ${exhaustedRetryMillis} ms`
          ),
          () => isLogged
        ),
        exhaustedRetryMillis
      )
    })
  const peer = new Uint8Array(SocketAddress.maxBytes)
  const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      if (fd < 0) return restore(Effect.never)
      if (!isReady) return Effect.zipRight(restore(arrival), next)
      const accepted = sockets.accept(fd, peer)
      if (accepted < 0) {
        const errno = sockets.errno()
        if (isRetryable(errno)) isReady = false
        return isRetryable(errno) || Sockets.isConnectionError(errno)
          ? next
          : Effect.zipRight(restore(pause(errno)), next)
      }
      isExhausted = false
      const made = KernelConnection.make(kernel, accepted, SocketAddress.decode(peer))
      // Not `Effect.addFinalizer`, whose finalizer keeps the fiber in memory.
      return Effect.scopeWith((scope) => Effect.as(Scope.addFinalizer(scope, Effect.sync(made.close)), made.connection))
    })
    return next
  })

  const name = new Uint8Array(SocketAddress.maxBytes)
  sockets.nameOf(fd, name)
  const listener: Listener = { address: SocketAddress.decode(name), accept }
  return { listener, close }
}
