/**
 * Connects to a host name that has several addresses: alternating families, each attempt a little after the previous one,
 * until the first succeeds.
 *
 * Source: RFC 8305 (Happy Eyeballs) sections 4 and 5.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { type NameOptions, TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import { destroy, socketOptions } from "./NodeConnection.js"
import type * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"
import type { Resolver } from "./Resolver.js"

export interface Options extends NameOptions {
  readonly resolver: Resolver
}

/**
 * Begins to connect to an address and reports the result. The returned function cancels the attempt, or closes the socket.
 *
 * `close` lives as long as the socket. It must not refer to the attempt, which refers to the fiber that waited for it.
 */
export type Attempt<A> = (
  ipAddress: NodeHosts.IpAddress,
  address: Address.Address,
  on: {
    readonly opened: (socket: A, close: () => void) => void
    readonly failed: (error: TransportError) => void
  }
) => () => void

/**
 * An open socket, which the scope closes. Fails with the error of the last attempt.
 *
 * When no cached address answers, the name is looked up again. If it has other addresses now, they are tried as well.
 */
export const dial = <A>(
  address: Address.Address,
  attempt: Attempt<A>,
  { namesFor, resolver }: Options
): Effect.Effect<A, TransportError, Scope.Scope> =>
  resolver.resolve(address.host, namesFor).pipe(
    Effect.mapError((cause) => Errno.fromNode("connect", address, cause)),
    Effect.flatMap(({ addresses, isCached }) => {
      const connect = race(address, alternating(addresses), attempt)
      if (!isCached) return connect
      return connect.pipe(
        // A dial that timed out. The next one may have other addresses.
        Effect.onInterrupt(() => Effect.sync(() => resolver.refreshLater(address.host))),
        Effect.catchAll(retryWithOthers(address, addresses, attempt, resolver))
      )
    })
  )

/** As `dial`, without a fiber, with the addresses that are known. `undefined` when the name has to be looked up. */
export const dialNow = <A>(
  address: Address.Address,
  attempt: Attempt<A>,
  on: Parameters<Attempt<A>>[2],
  { namesFor, resolver }: Options
): (() => void) | undefined => {
  const addresses = resolver.known(address.host, namesFor)
  return addresses === undefined || addresses.length === 0
    ? undefined
    : raceNow(address, alternating(addresses), attempt, on)
}

/** An attempt with a socket of Node, which is paused and has an error listener. */
export const viaNode: Attempt<Net.Socket> = ({ host }, address, { failed, opened }) => {
  const socket = Net.connect({ ...socketOptions, host, port: address.port })
  socket
    .pause()
    .on("error", () => undefined)
    .once("error", (cause) => failed(Errno.fromNode("connect", address, cause)))
    .once("connect", () => opened(socket, closing(socket)))
  return () => destroy(socket)
}

// internal

const retryWithOthers =
  <A>(
    address: Address.Address,
    tried: ReadonlyArray<NodeHosts.IpAddress>,
    attempt: Attempt<A>,
    { refresh }: Resolver
  ) =>
  (error: TransportError): Effect.Effect<A, TransportError, Scope.Scope> =>
    Effect.timeoutTo(refresh(address.host), {
      duration: refreshTimeout,
      onTimeout: () => tried,
      onSuccess: (found) => found
    }).pipe(
      Effect.orElseSucceed(() => tried),
      Effect.map((found) => found.filter(({ host }) => !tried.some((other) => other.host === host))),
      Effect.flatMap((others) =>
        others.length === 0 ? Effect.fail(error) : race(address, alternating(others), attempt)
      )
    )

/** How long a dial that failed waits for the new lookup. The lookup goes on for the next dial. */
const refreshTimeout = "1 second"

/** Made outside of the attempt, so that it does not keep the attempt in memory. */
const closing = (socket: Net.Socket) => () => destroy(socket)

/** Milliseconds after which the next address is tried while the present attempt goes on. */
const attemptDelayMillis = 250

/** One address of each family in turn, beginning with the family that the system prefers. */
const alternating = (found: ReadonlyArray<NodeHosts.IpAddress>): ReadonlyArray<NodeHosts.IpAddress> => {
  const preferred = found.filter(({ family }) => family === found[0]?.family)
  const others = found.filter(({ family }) => family !== found[0]?.family)
  return Array.from({ length: found.length }, (_, index) => [preferred[index], others[index]])
    .flat()
    .filter((ipAddress) => ipAddress !== undefined)
}

interface Race {
  /** Cancels each attempt that is under way. */
  readonly cancels: Set<() => void>
  timer: NodeJS.Timeout | undefined
}

const end = ({ cancels, timer }: Race): void => {
  clearTimeout(timer)
  for (const cancel of cancels) cancel()
}

/** Begins to connect to the addresses, one after the other. The returned function cancels each attempt that is under way. */
const raceNow = <A>(
  address: Address.Address,
  candidates: ReadonlyArray<NodeHosts.IpAddress>,
  attempt: Attempt<A>,
  on: Parameters<Attempt<A>>[2]
): (() => void) => {
  const race: Race = { cancels: new Set(), timer: undefined }
  let next = 0
  const begin = () => {
    clearTimeout(race.timer)
    const candidate = candidates[next++]
    if (candidate === undefined) return
    // The attempt may fail before it returns.
    const attempted = { cancel: () => {} }
    const cancel = () => attempted.cancel()
    race.cancels.add(cancel)
    attempted.cancel = attempt(candidate, address, {
      opened: (socket, close) => {
        race.cancels.delete(cancel)
        end(race)
        next = candidates.length
        on.opened(socket, close)
      },
      failed: (error) => {
        race.cancels.delete(cancel)
        if (next < candidates.length) begin()
        else if (race.cancels.size === 0) on.failed(error)
      }
    })
    clearTimeout(race.timer)
    if (next < candidates.length) race.timer = setTimeout(begin, attemptDelayMillis)
  }
  begin()
  return () => end(race)
}

const race = <A>(
  address: Address.Address,
  candidates: ReadonlyArray<NodeHosts.IpAddress>,
  attempt: Attempt<A>
): Effect.Effect<A, TransportError, Scope.Scope> =>
  candidates.length === 0
    ? Effect.fail(new TransportError({ operation: "connect", address, reason: "UnknownHost" }))
    : owned(
        (close: () => void) => close(),
        (own) =>
          Effect.async((resume) => {
            // An attempt may open at once: what is owned last has to be the socket.
            let isOpen = false
            const cancel = raceNow(address, candidates, attempt, {
              opened: (socket, close) => {
                isOpen = true
                own(close)
                resume(Effect.succeed(socket))
              },
              failed: (error) => resume(Effect.fail(error))
            })
            if (!isOpen) own(cancel)
          })
      )
