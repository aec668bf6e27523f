/**
 * The `Transport` of one simulated host.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Address from "../core/Address.js"
import {
  type Connection,
  type Listener,
  type ListenOptions,
  type Reason,
  Transport,
  TransportError
} from "../transport/Transport.js"
import * as SimConnection from "./SimConnection.js"
import type * as SimSide from "./SimSide.js"
import * as SimTls from "./SimTls.js"
import * as SimDatagrams from "./SimDatagrams.js"
import { type OwnedPair, isSelf, type Machine, type Port, type HostPath, type World } from "./SimWorld.js"

/** The Transport of a machine. After the machine has crashed, it has no effect any more. */
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
      const path = world.path(machine.name, name)
      yield* travel(path)
      const pair = yield* Effect.acquireRelease(
        Effect.sync(() => arrive(world, machine, path, name, address.port)),
        (pair) => (pair === undefined ? Effect.void : closing(world, pair, pair.client))
      )
      if (pair === undefined) yield* Effect.unless(travel(path), () => machine.crashed)
      if (machine.crashed) return yield* fail("Unreachable")
      if (pair === undefined) return yield* fail("Refused")
      const connection = SimConnection.connectionOf(pair, pair.client)
      yield* Effect.onInterrupt(travel(path), () => connection.reset)
      return connection
    })

/** A connection request arrives: the new connection waits in the backlog, if the port is open. */
const arrive = (
  world: World,
  machine: Machine,
  path: HostPath,
  name: string,
  number: number
): OwnedPair | undefined => {
  const port = world.port(name, number)
  const self = name === machine.name
  if (machine.crashed || port === undefined || (port.loopback && !self)) return undefined
  const client = Address.make(self ? "127.0.0.1" : machine.name, world.freePort(machine))
  const server = Address.make(self ? "127.0.0.1" : name, number)
  const sides = SimConnection.make(path, client, server)
  const owners = new Map([
    [sides.client, machine],
    [sides.server, world.machine(name)]
  ])
  const pair: OwnedPair = { ...sides, path, owners }
  world.pairs.push(pair)
  port.backlog.push(pair)
  port.arrival.unsafeOpen()
  return pair
}

const listen =
  (world: World, machine: Machine) =>
  (address: Address.Address, options?: ListenOptions): Effect.Effect<Listener, TransportError, Scope.Scope> =>
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
          for (const pair of port.backlog.splice(0)) {
            SimConnection.drop(pair, pair.server, now)
            world.leave(pair, pair.server)
          }
        })
    ).pipe(
      Effect.map(({ number, port }) => ({
        address: Address.make(address.host, number),
        accept: accept(world, port, options?.admit)
      }))
    )

const accept = (world: World, port: Port, admit: ListenOptions["admit"]): Listener["accept"] =>
  Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      const pair = port.backlog.shift()
      if (pair === undefined) {
        port.arrival.unsafeClose()
        return Effect.zipRight(restore(port.arrival.await), next)
      }
      if (admit?.(pair.server.remote) === false) {
        return Clock.clockWith((clock) => {
          SimConnection.drop(pair, pair.server, clock.unsafeCurrentTimeMillis())
          world.leave(pair, pair.server)
          return next
        })
      }
      return Effect.as(
        Effect.addFinalizer(() => closing(world, pair, pair.server)),
        SimConnection.connectionOf(pair, pair.server)
      )
    })
    return next
  })

const closing = (world: World, pair: OwnedPair, side: SimSide.Side): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    SimConnection.close(pair, side, now)
    world.leave(pair, side)
  })

/** Waits while a request or its answer is in transit. */
const travel = (path: HostPath): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (path.held) return Effect.zipRight(path.healed.await, travel(path))
    const delay =
      path.jitter > 0
        ? Effect.map(Random.next, (chance) => path.latency + chance * path.jitter)
        : Effect.succeed(path.latency)
    return delay.pipe(
      Effect.flatMap(Effect.sleep),
      Effect.zipRight(Effect.suspend(() => (path.held ? travel(path) : Effect.void)))
    )
  })
