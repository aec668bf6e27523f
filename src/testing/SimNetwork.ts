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
import type * as Address from "../core/Address.js"
import { Transport } from "../transport/Transport.js"
import * as SimConnection from "./SimConnection.js"
import * as SimHost from "./SimHost.js"
import * as SimWorld from "./SimWorld.js"

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
  /** The chance, for each datagram, that it never arrives. Jitter lets datagrams overtake each other. Defaults to `0`. */
  readonly loss?: number | undefined
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
  /** Ends of connections, and UDP ports, that no scope has closed yet. */
  readonly open: () => number
  /** Holds everything on its way between two hosts, and whoever connects: nothing arrives and nothing fails. Datagrams are lost. */
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
  const world = SimWorld.make({
    latency: Duration.toMillis(link?.latency ?? 0),
    jitter: Duration.toMillis(link?.jitter ?? 0),
    window: link?.window ?? 16,
    segment: link?.segment ?? 65_536,
    reset: link?.reset ?? 0,
    loss: link?.loss ?? 0
  })
  return {
    host: (name) => {
      world.names.add(name)
      return Layer.sync(Transport, () => SimHost.transport(world, world.machine(name)))
    },
    open: () => world.entries.reduce((sum, { owners }) => sum + owners.size, world.datagramPorts.size),
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
