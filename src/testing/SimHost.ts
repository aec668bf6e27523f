/**
 * The `Transport` of one simulated host.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Address from "../core/Address.js"
import { type Connection, type Listener, type Reason, Transport, TransportError } from "../transport/Transport.js"
import * as SimConnection from "./SimConnection.js"
import type * as SimSide from "./SimSide.js"
import * as SimTls from "./SimTls.js"
import * as SimDatagrams from "./SimDatagrams.js"
import { type Entry, isSelf, type Machine, type Port, type Way, type World } from "./SimWorld.js"

/** The Transport of what runs on the machine; once that has crashed, it touches nothing. */
export const transport = (world: World, machine: Machine): Transport["Type"] =>
  Transport.of({
    connect: connect(world, machine),
    listen: listen(world, machine),
    secure: SimTls.secure,
    reaches: (target, own) =>
      Effect.succeed(
        isSelf(machine, target) &&
          (!Address.isLoopback(own) || Address.isLoopback(target) || Address.isWildcard(target))
      ),
    bind: (address) => SimDatagrams.open(world, machine, { address }),
    associate: (peer) => SimDatagrams.open(world, machine, { peer })
  })

// internal

const connect =
  (world: World, machine: Machine) =>
  (address: Address.Address): Effect.Effect<Connection, TransportError, Scope.Scope> =>
    Effect.gen(function* () {
      const fail = (reason: Reason) => new TransportError({ operation: "connect", reason, address })
      const name = isSelf(machine, address) ? machine.name : address.host
      if (machine.crashed) return yield* fail("Unreachable")
      if (!world.names.has(name)) return yield* fail("UnknownHost")
      const way = world.way(machine.name, name)
      yield* travel(way)
      const entry = yield* Effect.acquireRelease(
        Effect.sync(() => reach(world, machine, way, name, address.port)),
        (entry) => (entry === undefined ? Effect.void : closing(world, entry, entry.client))
      )
      if (entry === undefined) yield* Effect.unless(travel(way), () => machine.crashed)
      if (machine.crashed) return yield* fail("Unreachable")
      if (entry === undefined) return yield* fail("Refused")
      const connection = SimConnection.connectionOf(entry, entry.client)
      yield* Effect.onInterrupt(travel(way), () => connection.reset)
      return connection
    })

/** The request to connect has arrived: the new connection waits in the backlog, if anybody listens. */
const reach = (world: World, machine: Machine, way: Way, name: string, number: number): Entry | undefined => {
  const port = world.port(name, number)
  const self = name === machine.name
  if (machine.crashed || port === undefined || (port.loopback && !self)) return undefined
  const client = Address.make(self ? "127.0.0.1" : machine.name, world.freePort(machine))
  const server = Address.make(self ? "127.0.0.1" : name, number)
  const pair = SimConnection.make(way, client, server)
  const owners = new Map([
    [pair.client, machine],
    [pair.server, world.machine(name)]
  ])
  const entry: Entry = { ...pair, path: way, owners }
  world.entries.push(entry)
  port.backlog.push(entry)
  port.arrival.unsafeOpen()
  return entry
}

const listen =
  (world: World, machine: Machine) =>
  (address: Address.Address): Effect.Effect<Listener, TransportError, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        const fail = (reason: Reason) => Effect.fail(new TransportError({ operation: "listen", reason, address }))
        if (machine.crashed || !isSelf(machine, address)) return fail("AddressUnavailable")
        const number = address.port === 0 ? world.freePort(machine) : address.port
        if (machine.ports.has(number)) return fail("AddressInUse")
        const port: Port = {
          loopback: Address.isLoopback(address),
          backlog: [],
          arrival: Effect.unsafeMakeLatch(false)
        }
        machine.ports.set(number, port)
        return Effect.succeed({ port, number })
      }),
      ({ number, port }) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          machine.ports.delete(number)
          for (const entry of port.backlog.splice(0)) {
            SimConnection.drop(entry, entry.server, now)
            world.leave(entry, entry.server)
          }
        })
    ).pipe(
      Effect.map(({ number, port }) => ({ address: Address.make(address.host, number), accept: accept(world, port) }))
    )

const accept = (world: World, port: Port): Listener["accept"] =>
  Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      const entry = port.backlog.shift()
      if (entry === undefined) {
        port.arrival.unsafeClose()
        return Effect.zipRight(restore(port.arrival.await), next)
      }
      return Effect.as(
        Effect.addFinalizer(() => closing(world, entry, entry.server)),
        SimConnection.connectionOf(entry, entry.server)
      )
    })
    return next
  })

const closing = (world: World, entry: Entry, side: SimSide.Side): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    SimConnection.close(entry, side, now)
    world.leave(entry, side)
  })

/** Waits as long as a request or its answer is under way. */
const travel = (way: Way): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (way.held) return Effect.zipRight(way.healed.await, travel(way))
    const delay =
      way.jitter > 0
        ? Effect.map(Random.next, (chance) => way.latency + chance * way.jitter)
        : Effect.succeed(way.latency)
    return delay.pipe(
      Effect.flatMap(Effect.sleep),
      Effect.zipRight(Effect.suspend(() => (way.held ? travel(way) : Effect.void)))
    )
  })
