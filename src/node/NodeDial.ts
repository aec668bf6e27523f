/**
 * Connecting to a name that has several addresses: to both families, one a little after the other, and the first that
 * answers is it.
 *
 * Source: RFC 8305 (happy eyeballs) sections 4 and 5.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../Address.js"
import type { TransportError } from "../Transport.js"
import { destroy, failure, socketOptions } from "./NodeConnection.js"
import * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"

export interface Options {
  /** Where a name leads. Defaults to what the system says now, which minds how long it may be remembered. */
  readonly lookup?: typeof NodeHosts.lookup | undefined
}

/** An open socket, paused, whose errors are heard. Fails with what the last address said. */
export const dial = (
  address: Address.Address,
  { lookup = NodeHosts.lookup }: Options = {}
): Effect.Effect<Net.Socket, TransportError, Scope.Scope> =>
  lookup(address.host).pipe(
    Effect.mapError((cause) => failure("connect", address, cause)),
    Effect.flatMap((ways) => race(address, inTurns(ways)))
  )

// internal

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
  readonly sockets: Set<Net.Socket>
  timer: NodeJS.Timeout | undefined
}

const end = ({ sockets, timer }: Race): void => {
  clearTimeout(timer)
  for (const socket of sockets) destroy(socket)
}

const race = (
  address: Address.Address,
  ways: ReadonlyArray<NodeHosts.Way>
): Effect.Effect<Net.Socket, TransportError, Scope.Scope> =>
  owned(end, (own) =>
    Effect.async((resume) => {
      const race: Race = { sockets: new Set(), timer: undefined }
      own(race)
      let next = 0
      const begin = () => {
        clearTimeout(race.timer)
        const way = ways[next++]
        if (way === undefined) return
        const socket = Net.connect({ ...socketOptions, host: way.host, port: address.port })
        race.sockets.add(socket)
        socket
          .pause()
          .on("error", () => undefined)
          .once("error", (cause) => {
            race.sockets.delete(socket)
            if (next < ways.length) begin()
            else if (race.sockets.size === 0) resume(Effect.fail(failure("connect", address, cause)))
          })
          .once("connect", () => {
            race.sockets.delete(socket)
            end(race)
            race.sockets.clear()
            race.sockets.add(socket)
            next = ways.length
            resume(Effect.succeed(socket))
          })
        if (next < ways.length) race.timer = setTimeout(begin, head)
      }
      if (ways.length > 0) begin()
      else resume(Effect.fail(failure("connect", address, { code: "ENOTFOUND" })))
    })
  )
