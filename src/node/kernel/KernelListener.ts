/**
 * A port for connections, by its descriptor. What nobody has asked for yet waits in the kernel's backlog.
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
import { isLater } from "./ffi/Libc.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"

/** See `Transport`. */
export const listen =
  (kernel: Kernel) =>
  (address: Address.Address): Effect.Effect<Listener, TransportError, Scope.Scope> =>
    waysOf(address).pipe(
      Effect.mapError((cause) => Errno.fromNode("listen", address, cause)),
      Effect.flatMap((ways) =>
        Effect.acquireRelease(
          Effect.suspend(() => {
            let errno = EADDRNOTAVAIL
            for (const way of ways) {
              const opened = open(kernel, way, address.port)
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

/** Connections that wait to be accepted, at most; the system may have a lower limit. */
const backlog = 4096
/** Milliseconds between two attempts to accept where descriptors, or memory, have run out. */
const pause = 100

const waysOf = (address: Address.Address): Effect.Effect<ReadonlyArray<NodeHosts.Way>, NodeJS.ErrnoException> => {
  if (!Address.isWildcard(address)) return Effect.map(NodeHosts.lookup(address.host), (ways) => ways.slice(0, 1))
  const four: NodeHosts.Way = { host: "0.0.0.0", family: 4 }
  // Both families come in at the one of IPv6, where there is any.
  return Effect.succeed(address.host === four.host ? [four] : [{ host: "::", family: 6 }, four])
}

const open = ({ libc, sockets }: Kernel, way: NodeHosts.Way, port: number) => {
  const fd = sockets.open(way.family)
  if (fd < 0) return { fd, errno: sockets.errno() }
  const { onlyIPv6, reuseAddress } = Sockets.options
  Sockets.tune(sockets, fd)
  sockets.set(fd, reuseAddress, 1)
  if (way.family === 6) sockets.set(fd, onlyIPv6, 0)
  const bound = sockets.bind(fd, SocketAddress.encode(way, port))
  if (bound >= 0 && sockets.listen(fd, backlog) >= 0) return { fd, errno: 0 }
  const errno = sockets.errno()
  libc.close(fd)
  return { fd: -1, errno }
}

const make = (kernel: Kernel, descriptor: number) => {
  const { libc, poller, sockets } = kernel
  let fd = descriptor
  let short = false
  const waiting = new Set<() => void>()
  const wakeAll = () => {
    for (const wake of waiting) wake()
  }
  let ready = true
  poller.watch(fd, () => {
    ready = true
    wakeAll()
  })
  const close = () => {
    if (fd < 0) return
    poller.drop(fd)
    libc.close(fd)
    fd = -1
  }

  const arrival = Effect.async<void>((resume) => {
    if (ready) return resume(Effect.void)
    const wake = () => {
      waiting.delete(wake)
      resume(Effect.void)
    }
    waiting.add(wake)
    return Effect.sync(() => waiting.delete(wake))
  })
  const from = new Uint8Array(SocketAddress.room)
  const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      if (fd < 0) return restore(Effect.never)
      if (!ready) return Effect.zipRight(restore(arrival), next)
      const accepted = sockets.accept(fd, from)
      if (accepted < 0) {
        const errno = sockets.errno()
        if (isLater(errno)) ready = false
        return isLater(errno) || Sockets.isPassing(errno) ? next : Effect.zipRight(restore(exhausted(errno)), next)
      }
      short = false
      const made = KernelConnection.make(kernel, accepted, SocketAddress.decode(from))
      // `addFinalizer` would keep the fiber, too.
      return Effect.scopeWith((scope) => Effect.as(Scope.addFinalizer(scope, Effect.sync(made.close)), made.connection))
    })
    return next
  })
  /** They wait in the backlog meanwhile. */
  const exhausted = (errno: number) =>
    Effect.suspend(() => {
      const again = short
      short = true
      const error = Errno.nameOf(errno)
      return Effect.delay(
        Effect.unless(Effect.logWarning(`no visitor can be accepted for now: ${error}`), () => again),
        pause
      )
    })

  const name = new Uint8Array(SocketAddress.room)
  sockets.nameOf(fd, name)
  const listener: Listener = { address: SocketAddress.decode(name), accept }
  return { listener, close }
}
