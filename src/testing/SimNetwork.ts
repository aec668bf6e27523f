/**
 * Several hosts and the network between them, simulated: a `Transport` for each, and the faults of both.
 *
 * Time comes from Clock and chance from Random, so under `Simulation.run` equal seeds are equal histories.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constTrue } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.js"
import { type Connection, type Listener, type Reason, Transport, TransportError } from "../Transport.js"
import * as SimConnection from "./SimConnection.js"

/** How every two hosts are linked. A host reaches itself at once and without resets by chance. */
export interface Link {
  /** From one host to another, one way. Defaults to none. */
  readonly latency?: Duration.DurationInput | undefined
  /** Up to this much is added to the latency of each segment; their order stays. Defaults to none. */
  readonly jitter?: Duration.DurationInput | undefined
  /** Segments that may wait for the other side's reader before `write` waits. Defaults to `16`. */
  readonly window?: number | undefined
  /** Bytes in the largest segment; what is longer is cut at random points. Defaults to `65536`. */
  readonly segment?: number | undefined
  /** The chance, for each segment, that its connection is reset. Defaults to `0`. */
  readonly reset?: number | undefined
}

export interface Cut {
  /** Which connections. Defaults to all. */
  readonly where?:
    | ((connection: { readonly client: Address.Address; readonly server: Address.Address }) => boolean)
    | undefined
  /** How many, the oldest first. Defaults to no limit. */
  readonly limit?: number | undefined
}

export interface SimNetwork {
  /**
   * The Transport of a host, which exists from now on.
   *
   * It listens on its own name, on every interface, and on its loopback, where only itself can connect. It connects
   * to any host by name, and to itself by loopback. Each build is the same machine, until that crashes.
   */
  readonly host: (name: string) => Layer.Layer<Transport>
  /** Ends of connections that no scope has closed yet. */
  readonly open: () => number
  /** Holds everything on its way between two hosts, and whoever connects: nothing arrives and nothing fails. */
  readonly partition: (a: string, b: string) => Effect.Effect<void>
  /** Lets everything held arrive, in order. */
  readonly heal: (a: string, b: string) => Effect.Effect<void>
  /** Resets connections between two hosts, seen by both sides at once. Says how many. */
  readonly cut: (a: string, b: string, options?: Cut) => Effect.Effect<number>
  /**
   * Kills what runs on the host, as `kill -9`: its ports are closed and its connections reset for their peers.
   *
   * Whatever uses a Transport built before touches nothing any more; one built after is that of a fresh start.
   */
  readonly crash: (name: string) => Effect.Effect<void>
}

export const make = (link?: Link): SimNetwork => {
  const world = makeWorld(link)
  return {
    host: (name) => {
      world.names.add(name)
      return Layer.sync(Transport, () => {
        const machine = world.machine(name)
        return Transport.of({ connect: connect(world, machine), listen: listen(world, machine) })
      })
    },
    open: () => world.entries.reduce((sum, { owners }) => sum + owners.size, 0),
    partition: (a, b) => Effect.map(Clock.currentTimeMillis, (now) => world.partition(world.way(a, b), now)),
    heal: (a, b) => Effect.map(Clock.currentTimeMillis, (now) => world.heal(world.way(a, b), now)),
    cut: (a, b, options) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const { limit = Infinity, where = constTrue } = options ?? {}
        const chosen = world
          .on(world.way(a, b))
          .filter((entry) => SimConnection.isLive(entry, now))
          .filter(({ client }) => where({ client: client.local, server: client.remote }))
          .slice(0, limit)
        for (const entry of chosen) SimConnection.sever(entry, now)
        return chosen.length
      }),
    crash: (name) => Effect.map(Clock.currentTimeMillis, (now) => world.crash(name, now))
  }
}

// internal

interface Port {
  /** Only the host itself can connect. */
  readonly loopback: boolean
  /** Who connected and was not accepted yet; `arrival` is open when somebody did. */
  readonly backlog: Array<Entry>
  readonly arrival: Effect.Latch
}

/** What runs on a host between two crashes. */
interface Machine {
  readonly name: string
  readonly ports: Map<number, Port>
  crashed: boolean
}

interface Way extends SimConnection.Path {
  readonly healed: Effect.Latch
}

interface Entry extends SimConnection.Pair {
  readonly path: Way
  /** Whose its two sides are, until a scope closes them. */
  readonly owners: Map<SimConnection.Side, Machine>
}

type World = ReturnType<typeof makeWorld>

const makeWorld = (link: Link | undefined) => {
  const latency = Duration.toMillis(link?.latency ?? 0)
  const jitter = Duration.toMillis(link?.jitter ?? 0)
  const names = new Set<string>()
  const machines = new Map<string, Machine>()
  const ways = new Map<string, Way>()
  const entries: Array<Entry> = []
  let ephemeral = 40_000

  const on = (way: Way) => entries.filter(({ path }) => path === way)
  return {
    names,
    entries,
    on,
    way: (a: string, b: string): Way => {
      const key = JSON.stringify(a < b ? [a, b] : [b, a])
      const way = ways.get(key) ?? {
        ...(a === b ? { latency: 0, jitter: 0, reset: 0 } : { latency, jitter, reset: link?.reset ?? 0 }),
        window: link?.window ?? 16,
        segment: link?.segment ?? 65_536,
        held: false,
        healed: Effect.unsafeMakeLatch(true)
      }
      ways.set(key, way)
      return way
    },
    machine: (name: string): Machine => {
      const machine = machines.get(name) ?? { name, ports: new Map<number, Port>(), crashed: false }
      machines.set(name, machine)
      return machine
    },
    port: (name: string, port: number): Port | undefined => machines.get(name)?.ports.get(port),
    freePort: (machine: Machine): number => {
      do ephemeral = ephemeral === 65_535 ? 40_000 : ephemeral + 1
      while (machine.ports.has(ephemeral))
      return ephemeral
    },
    partition: (way: Way, now: number): void => {
      way.held = true
      way.healed.unsafeClose()
      for (const entry of on(way)) SimConnection.hold(entry, now)
    },
    heal: (way: Way, now: number): void => {
      way.held = false
      way.healed.unsafeOpen()
      for (const entry of on(way)) SimConnection.release(entry, now)
    },
    crash: (name: string, now: number): void => {
      const machine = machines.get(name)
      if (machine === undefined) return
      machines.delete(name)
      machine.crashed = true
      machine.ports.clear()
      for (const entry of entries) {
        for (const [side, owner] of entry.owners) if (owner === machine) SimConnection.drop(entry, side, now)
      }
    },
    leave: (entry: Entry, side: SimConnection.Side): void => {
      entry.owners.delete(side)
      if (entry.owners.size === 0) entries.splice(entries.indexOf(entry), 1)
    }
  }
}

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

const closing = (world: World, entry: Entry, side: SimConnection.Side): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    SimConnection.close(entry, side, now)
    world.leave(entry, side)
  })

const isSelf = (machine: Machine, address: Address.Address): boolean =>
  address.host === machine.name || Address.isWildcard(address) || Address.isLoopback(address)

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
