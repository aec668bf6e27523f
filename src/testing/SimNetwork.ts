/**
 * A simulated network: hosts with a `Transport` each, and faults of the hosts and of the network.
 *
 * Time comes from Clock and randomness from Random, so that under `Simulation.run` equal seeds give equal histories.
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

/** The path between any two hosts. A host reaches itself without delay, resets or loss. */
export interface Link {
  /** Latency in one direction. Defaults to none. */
  readonly latency?: Duration.DurationInput | undefined
  /** Up to this much is added to the latency of each segment. Segments stay in order. Defaults to none. */
  readonly jitter?: Duration.DurationInput | undefined
  /** Segments that may wait to be read before `write` waits. Defaults to `16`. */
  readonly window?: number | undefined
  /** Bytes in a segment, at most. Longer writes are split at random points. Defaults to `65536`. */
  readonly segment?: number | undefined
  /** The probability, for each segment, that its connection is reset. Defaults to `0`. */
  readonly reset?: number | undefined
  /** The probability, for each datagram, that it is lost. With jitter, datagrams overtake each other. Defaults to `0`. */
  readonly loss?: number | undefined
}

export interface Cut {
  /** The connections to choose from. Defaults to all. */
  readonly where?:
    | ((connection: { readonly client: Address.Address; readonly server: Address.Address }) => boolean)
    | undefined
  /** How many connections, the oldest first. Defaults to no limit. */
  readonly limit?: number | undefined
}

export interface SimNetwork {
  /**
   * The Transport of a host. The host exists from this call on.
   *
   * It can listen on its own name, on every interface, and on its loopback, which only the host itself can reach. It can
   * connect to any host by name, and to itself by loopback. Every build of the layer is the same machine, until it crashes.
   */
  readonly host: (name: string) => Layer.Layer<Transport>
  /** Sides of connections, and UDP ports, that are not closed yet. */
  readonly open: () => number
  /** Holds everything in transit between two hosts, and new connections: nothing arrives and nothing fails. Datagrams are lost. */
  readonly partition: (a: string, b: string) => Effect.Effect<void>
  /** Ends the partition. Everything that was held arrives, in order. */
  readonly heal: (a: string, b: string) => Effect.Effect<void>
  /**
   * Swallows connections between two hosts, both ways: what is in transit and what is sent from now on is lost, and no side
   * gets an end or a reset. A `watch` notices it after 9 seconds. Returns how many.
   */
  readonly swallow: (a: string, b: string, options?: Cut) => Effect.Effect<number>
  /** Resets connections between two hosts, on both sides at once. Returns how many. */
  readonly cut: (a: string, b: string, options?: Cut) => Effect.Effect<number>
  /**
   * Crashes the host, like `kill -9`: its ports are closed, and its connections are reset for their peers.
   *
   * A Transport that was built before has no effect any more. One that is built afterwards belongs to a restarted host.
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
  const each =
    (act: (pair: SimConnection.Pair, now: number) => void): SimNetwork["cut"] =>
    (a, b, { limit = Infinity, where = constTrue } = {}) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const chosen = world
          .on(world.path(a, b))
          .filter((pair) => SimConnection.isLive(pair, now))
          .filter(({ client }) => where({ client: client.local, server: client.remote }))
          .slice(0, limit)
        for (const pair of chosen) act(pair, now)
        return chosen.length
      })
  return {
    host: (name) => {
      world.names.add(name)
      return Layer.sync(Transport, () => SimHost.transport(world, world.machine(name)))
    },
    open: () => world.pairs.reduce((sum, { owners }) => sum + owners.size, world.datagramPorts.size),
    partition: (a, b) => Effect.map(Clock.currentTimeMillis, (now) => world.partition(world.path(a, b), now)),
    heal: (a, b) => Effect.map(Clock.currentTimeMillis, (now) => world.heal(world.path(a, b), now)),
    swallow: each(SimConnection.swallow),
    cut: each(SimConnection.sever),
    crash: (name) => Effect.map(Clock.currentTimeMillis, (now) => world.crash(name, now))
  }
}
