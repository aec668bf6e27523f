/**
 * A listening TCP port by its descriptor. Connections that no caller has accepted yet wait in the backlog of the kernel.
 */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Address from "../../core/Address.js"
import * as Capacity from "../../relay/Capacity.js"
import type { Listener, Transport } from "../../transport/Transport.js"
import * as Descriptors from "../socket/Descriptors.js"
import * as Errno from "../socket/Errno.js"
import * as EveryAddress from "../socket/EveryAddress.js"
import type * as NodeHosts from "../socket/NodeHosts.js"
import type { Resolver } from "../socket/Resolver.js"
import type { Kernel } from "./Kernel.js"
import * as KernelAccept from "./KernelAccept.js"
import type * as KernelConnection from "./KernelConnection.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"

/** See `Transport`. */
export const listen =
  (kernel: Kernel, resolver: Resolver): Transport["Type"]["listen"] =>
  (address, options) => {
    const descriptors = Descriptors.limit()
    const firstReserved = options?.port === "visitors" ? descriptors - Capacity.reserveOf(descriptors) : Infinity
    const open = (ipAddress: NodeHosts.IpAddress, port: number) => openPort(kernel, address, ipAddress, port)
    const everywhere = (host: string) =>
      host === ipv4Wildcard.host
        ? open(ipv4Wildcard, address.port)
        : // An IPv6 listener on `::` accepts both families.
          Effect.catchIf(
            open({ host: "::", family: 6 }, address.port),
            ({ reason }) => reason === "AddressUnavailable",
            () => open(ipv4Wildcard, address.port)
          )
    const ports = Address.isWildcard(address)
      ? Effect.map(everywhere(address.host), (port): Arr.NonEmptyArray<KernelAccept.Port> => [port])
      : EveryAddress.open(address, { resolver, operation: "listen", open, portOf: ({ address }) => address.port })
    return Effect.flatMap(ports, (ports) =>
      make(kernel, ports, { firstReserved, admit: options?.admit, screen: options?.screen })
    )
  }

// internal

/** Connections that can wait to be accepted. The system may have a lower limit. */
const backlog = 4096
/** Milliseconds until the next attempt to accept when the process is out of descriptors or memory. */
const exhaustedRetryMillis = 20
const warningIntervalMillis = 60_000
/** Connections that a port offers until other descriptors had their turn. */
const offersPerTurn = 64
/**
 * Milliseconds that a port with `admit` rests after it has reset peers and found no other. In a flood that takes a fraction of the CPU
 * of waking up for each of them; those who come meanwhile wait in the backlog.
 */
const restMillis = 2

const ipv4Wildcard: NodeHosts.IpAddress = { host: "0.0.0.0", family: 4 }

const openPort = (kernel: Kernel, address: Address.Address, ipAddress: NodeHosts.IpAddress, port: number) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const { errno, fd } = open(kernel, ipAddress, port)
      if (fd < 0) return Effect.fail(Errno.fromErrno("listen", address, errno))
      const name = new Uint8Array(SocketAddress.maxBytes)
      kernel.sockets.nameOf(fd, name)
      return Effect.succeed<KernelAccept.Port>({ address: SocketAddress.decode(name), fd, isReady: true })
    }),
    (port) =>
      Effect.sync(() => {
        kernel.poller.forget(port.fd)
        kernel.libc.close(port.fd)
        port.fd = -1
      })
  )

type Take = Parameters<NonNullable<Listener["offer"]>>[0]

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

const make = (kernel: Kernel, ports: Arr.NonEmptyArray<KernelAccept.Port>, acceptance: KernelAccept.Acceptance) =>
  Effect.gen(function* () {
    const { poller } = kernel
    const [{ address }] = ports
    const { accept: acceptNow, hasReset, nextTurn } = KernelAccept.make(kernel, ports, acceptance)
    const waiting = new Set<() => void>()
    const wake = () => {
      for (const resume of waiting) resume()
    }
    let take: Take | undefined

    /** The first connection that `take` does not take. */
    const acceptOffered = (): KernelAccept.Found => {
      for (let count = 0; count < offersPerTurn; count++) {
        const next = acceptNow()
        if (next._tag !== "Connection" || take?.(next.connection) !== true) return next
      }
      return KernelAccept.turn
    }
    /** KernelAccept.Found without a fiber, for the next who accepts. */
    let found: KernelAccept.Found | undefined
    let immediate: NodeJS.Immediate | undefined
    let rest: NodeJS.Timeout | undefined
    const find = () => {
      immediate = undefined
      nextTurn()
      if (found !== undefined || waiting.size === 0) return
      const next = acceptOffered()
      if (next._tag === "Turn") findLater()
      if (next._tag === "None" && hasReset()) rest ??= restNow()
      if (next._tag === "None" || next._tag === "Turn") return
      found = next
      wake()
    }
    /** After the handlers of all other descriptors, and what they wake. A peer that is dropped wakes no fiber. */
    const findLater = () => {
      if (rest === undefined) immediate ??= setImmediate(find)
    }
    const offer = () => {
      immediate = undefined
      if (found !== undefined || waiting.size === 0) return
      if (take === undefined) return wake()
      const next = acceptOffered()
      if (next._tag === "Turn") immediate ??= setImmediate(offer)
      if (next._tag === "None" || next._tag === "Turn") return
      found = next
      wake()
    }
    const onReady = acceptance.admit === undefined ? offer : findLater
    const watch = () => {
      for (const port of ports) {
        poller.watch(port.fd, {
          handle: () => {
            port.isReady = true
            onReady()
          }
        })
      }
    }
    const restNow = () => {
      for (const { fd } of ports) poller.unwatch(fd)
      return setTimeout(() => {
        rest = undefined
        watch()
      }, restMillis)
    }
    watch()
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        clearTimeout(rest)
        clearImmediate(immediate)
        if (found?._tag === "Connection") found.connection.close()
      })
    )

    const arrival = Effect.async<void>((resume) => {
      const stop = () => {
        waiting.delete(stop)
        resume(Effect.void)
      }
      waiting.add(stop)
      if (ports.some(({ fd, isReady }) => isReady && fd >= 0)) onReady()
      return Effect.sync(() => waiting.delete(stop))
    })
    const pause = makePause(address)
    const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) => {
      const next: Listener["accept"] = Effect.suspend(() => {
        const taken = found ?? acceptOffered()
        found = undefined
        if (taken._tag === "None" || taken._tag === "Turn") return Effect.zipRight(restore(arrival), next)
        if (taken._tag === "Exhausted") return Effect.zipRight(restore(pause(taken.reason)), next)
        const { connection } = taken
        // Not `Effect.addFinalizer`, whose finalizer keeps the fiber in memory.
        return Effect.scopeWith((scope) => Effect.as(Scope.addFinalizer(scope, closing(connection)), connection))
      })
      return next
    })
    const listener: Listener = {
      address,
      accept,
      offer: (taker) => {
        take = taker
        return () => {
          take = undefined
        }
      }
    }
    return listener
  })

/** A function of its own, so that it refers to nothing else. */
const closing = (connection: KernelConnection.SocketConnection) => Effect.sync(() => connection.close())

/** Logs once a minute, and waits. Connections stay in the backlog meanwhile. */
const makePause = (address: Address.Address) => {
  let lastWarningAt = -Infinity
  return (reason: string) =>
    Effect.suspend(() => {
      const now = performance.now()
      const isLogged = now - lastWarningAt < warningIntervalMillis
      if (!isLogged) lastWarningAt = now
      const warning = Effect.logWarning(
        `port ${address}: cannot accept connections: ${reason}; they wait, retrying every ${exhaustedRetryMillis} ms`
      )
      return Effect.delay(isLogged ? Effect.void : warning, exhaustedRetryMillis)
    })
}
