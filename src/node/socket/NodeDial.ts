/**
 * Connecting to a name that has several addresses: to both families, one a little after the other, and the first that
 * answers is it.
 *
 * Source: RFC 8305 (happy eyeballs) sections 4 and 5.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import { destroy, socketOptions } from "./NodeConnection.js"
import * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"

export interface Options {
  /** Where a name leads. Defaults to what the system says now, which minds how long it may be remembered. */
  readonly lookup?: typeof NodeHosts.lookup | undefined
}

/**
 * Begins to connect to an address, and tells how that went. What it answers abandons it, or closes what came of it.
 *
 * `close` is kept as long as the socket, so it must not keep the attempt, and with it the fiber that waited for it.
 */
export type Attempt<A> = (
  way: NodeHosts.Way,
  address: Address.Address,
  on: {
    readonly opened: (socket: A, close: () => void) => void
    readonly failed: (error: TransportError) => void
  }
) => () => void

/** An open socket, which the scope closes. Fails with what the last address said. */
export const dial = <A>(
  address: Address.Address,
  attempt: Attempt<A>,
  { lookup = NodeHosts.lookup }: Options = {}
): Effect.Effect<A, TransportError, Scope.Scope> =>
  lookup(address.host).pipe(
    Effect.mapError((cause) => Errno.fromNode("connect", address, cause)),
    Effect.flatMap((ways) => race(address, inTurns(ways), attempt))
  )

/** A socket of Node's, paused, whose errors are heard. */
export const viaNode: Attempt<Net.Socket> = ({ host }, address, { failed, opened }) => {
  const socket = Net.connect({ ...socketOptions, host, port: address.port })
  socket
    .pause()
    .on("error", () => undefined)
    .once("error", (cause) => failed(Errno.fromNode("connect", address, cause)))
    .once("connect", () => opened(socket, destroying(socket)))
  return () => destroy(socket)
}

// internal

const destroying = (socket: Net.Socket) => () => destroy(socket)

/** How long an address may take before the next one is tried beside it. */
const head = 250

/** One of each family in turn, beginning with the one that the system puts first. */
const inTurns = (ways: ReadonlyArray<NodeHosts.Way>): ReadonlyArray<NodeHosts.Way> => {
  const first = ways.filter(({ family }) => family === ways[0]?.family)
  const second = ways.filter(({ family }) => family !== ways[0]?.family)
  return Array.from({ length: ways.length }, (_, index) => [first[index], second[index]])
    .flat()
    .filter((way) => way !== undefined)
}

interface Race {
  /** What closes each attempt under way. */
  readonly open: Set<() => void>
  timer: NodeJS.Timeout | undefined
}

const end = ({ open, timer }: Race): void => {
  clearTimeout(timer)
  for (const close of open) close()
}

const race = <A>(
  address: Address.Address,
  ways: ReadonlyArray<NodeHosts.Way>,
  attempt: Attempt<A>
): Effect.Effect<A, TransportError, Scope.Scope> =>
  owned(
    (close: () => void) => close(),
    (own) =>
      Effect.async((resume) => {
        const race: Race = { open: new Set(), timer: undefined }
        own(() => end(race))
        let next = 0
        const begin = () => {
          clearTimeout(race.timer)
          const way = ways[next++]
          if (way === undefined) return
          // It may be over before it answers.
          const attempted = { close: () => {} }
          const close = () => attempted.close()
          race.open.add(close)
          attempted.close = attempt(way, address, {
            opened: (socket, closeIt) => {
              race.open.delete(close)
              end(race)
              own(closeIt)
              next = ways.length
              resume(Effect.succeed(socket))
            },
            failed: (error) => {
              race.open.delete(close)
              if (next < ways.length) begin()
              else if (race.open.size === 0) resume(Effect.fail(error))
            }
          })
          clearTimeout(race.timer)
          if (next < ways.length) race.timer = setTimeout(begin, head)
        }
        if (ways.length > 0) begin()
        else resume(Effect.fail(new TransportError({ operation: "connect", address, reason: "UnknownHost" })))
      })
  )
