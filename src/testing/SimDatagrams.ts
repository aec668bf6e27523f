/**
 * The UDP ports of one simulated host. Datagrams are lost at random and at closed ports, and may overtake each other.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Address from "../core/Address.js"
import {
  type Datagram,
  type DatagramSocket,
  maxBufferedBytes,
  type Reason,
  TransportError
} from "../transport/Transport.js"
import { untilChange, wake } from "./SimSide.js"
import { type DatagramPort, accepts, isSelf, type Machine, type World } from "./SimWorld.js"

/** Opens a port that receives from any peer, or from one peer only. */
export const open = (
  world: World,
  machine: Machine,
  options: { readonly address: Address.Address } | { readonly peer: Address.Address }
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> => {
  const peer = "peer" in options ? options.peer : undefined
  const address = "peer" in options ? Address.make("", 0) : options.address
  const fail = (reason: Reason) =>
    Effect.fail(new TransportError({ operation: peer ? "connect" : "bind", reason, address: peer ?? address }))
  return Effect.acquireRelease(
    Effect.suspend(() => {
      if (machine.crashed) return fail("Unreachable")
      if (peer !== undefined && !isSelf(machine, peer) && !world.names.has(peer.host)) return fail("UnknownHost")
      if (!isSelf(machine, address)) return fail("AddressUnavailable")
      const number = address.port === 0 ? world.freePort(machine) : address.port
      if (machine.datagramPorts.has(number)) return fail("AddressInUse")
      const port: DatagramPort = {
        address: Address.make(address.host, number),
        peer:
          peer === undefined ? undefined : Address.make(isSelf(machine, peer) ? machine.name : peer.host, peer.port),
        associate: peer,
        inbox: [],
        dropped: 0,
        resetAt: Infinity,
        events: 0,
        waiting: new Set()
      }
      machine.datagramPorts.set(number, port)
      world.datagramPorts.add(port)
      return Effect.succeed(port)
    }),
    (port) =>
      Effect.sync(() => {
        if (machine.datagramPorts.get(port.address.port) === port) machine.datagramPorts.delete(port.address.port)
        world.datagramPorts.delete(port)
        port.inbox = []
        wake(port)
      })
  ).pipe(
    Effect.map((port) => ({
      address: port.address,
      receive: receive(port),
      send: (datagrams) =>
        Effect.suspend(() =>
          world.datagramPorts.has(port)
            ? Effect.as(Effect.forEach(datagrams, send(world, machine, port), { discard: true }), 0)
            : Effect.succeed(datagrams.length)
        ),
      dropped: () => port.dropped
    }))
  )
}

// internal

const receive = (port: DatagramPort): Effect.Effect<ReadonlyArray<Datagram>, TransportError> =>
  Clock.clockWith((clock): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
    const now = clock.unsafeCurrentTimeMillis()
    const due = port.inbox.filter(({ at }) => at - now < 1e-6)
    if (due.length > 0) {
      port.inbox = port.inbox.slice(due.length)
      return Effect.succeed(due.map(({ datagram }) => datagram))
    }
    if (port.resetAt - now < 1e-6) {
      port.resetAt = Infinity
      return Effect.fail(
        new TransportError({ operation: "receive", reason: "Refused", address: port.peer ?? port.address })
      )
    }
    return Effect.zipRight(untilChange(port, clock, port.inbox[0]?.at), receive(port))
  })

const send =
  (world: World, machine: Machine, port: DatagramPort) =>
  ({ bytes, peer: to }: Datagram): Effect.Effect<void> =>
    Effect.gen(function* () {
      const { host, port: number } = port.peer ?? to
      const name = isSelf(machine, Address.make(host, number)) ? machine.name : host
      const path = world.path(machine.name, name)
      const lost = path.loss > 0 && (yield* Random.next) < path.loss
      const delay = path.latency + (path.jitter > 0 ? (yield* Random.next) * path.jitter : 0)
      if (machine.crashed || path.held || lost) return
      const now = yield* Clock.currentTimeMillis
      const self = name === machine.name
      const from = Address.make(self ? "127.0.0.1" : machine.name, port.address.port)
      const there = world.datagramPort(name, number)
      if (there === undefined || !accepts(there, self, machine.name, from.port)) {
        if (port.peer !== undefined) port.resetAt = Math.min(port.resetAt, now + 2 * path.latency)
        return wake(port)
      }
      const buffered = there.inbox.reduce((sum, { datagram }) => sum + datagram.bytes.length, bytes.length)
      if (buffered > maxBufferedBytes) {
        there.dropped++
        return
      }
      const at = now + delay
      const next = there.inbox.findIndex((other) => other.at > at)
      const datagram: Datagram = { peer: there.associate ?? from, bytes }
      there.inbox.splice(next === -1 ? there.inbox.length : next, 0, { at, datagram })
      wake(there)
    })
