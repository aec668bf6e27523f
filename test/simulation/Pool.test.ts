import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import type { OpenError } from "../../src/tunnel/Runner.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Transport from "../../src/transport/Transport.js"
import * as Tunnel from "../../src/tunnel/Tunnel.js"
import type { ClientConfig, ServerConfig } from "../../src/url/TunnelUrl.js"
import * as PoolFactory from "../../src/pool/PoolFactory.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import * as configs from "./worlds/configs.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"
import { textOf, utf8 } from "../Bytes.js"

const key = Option.some(Redacted.make("key"))
const common = {
  key,
  log: "info",
  read: Option.some(Duration.infinity),
  slot: Infinity,
  tunnel: Address.make("server", 1)
} as const
const target = Address.make("target", 80)
const visitors = Address.make("server", 8080)
const serverConfig = configs.server({ ...common, mode: "receive", targets: [visitors] })
const clientConfig = configs.client({ ...common, mode: "through", targets: [target] })

interface World {
  readonly network: SimNetwork.SimNetwork
  /** Starts one side on the named host; it stops with the scope. */
  readonly start: (
    host: string,
    config: ClientConfig | ServerConfig
  ) => Effect.Effect<Tunnel.Tunnel["Type"], OpenError, Scope.Scope>
  /** Connects as a visitor, sends a byte and returns the answer. */
  readonly visit: Effect.Effect<string, Transport.TransportError>
}

const world = <A, E>(latency: number, program: (world: World) => Effect.Effect<A, E, Scope.Scope>): A => {
  const network = SimNetwork.make({ latency: Duration.millis(latency) })
  let seed = 0
  const start: World["start"] = (host, config) =>
    Tunnel.layer(config).pipe(
      Layer.provide([
        network.host(host),
        SimCrypto.layer(seed++),
        SimCertificates.disk(seed).layer,
        Settings.layer(),
        Tunnel.layerDefaults
      ]),
      Layer.build,
      Effect.map((services) => Context.get(services, Tunnel.Tunnel))
    )
  const visit = Effect.gen(function* () {
    const transport = yield* Transport.Transport
    const connection = yield* transport.connect(visitors)
    yield* connection.write(new Uint8Array(1))
    const answer = yield* connection.read
    yield* connection.end
    return Option.match(answer, { onNone: () => "", onSome: (bytes) => textOf(bytes) })
  }).pipe(Effect.scoped, Effect.provide(network.host("visitor")))
  const main = Effect.gen(function* () {
    const transport = yield* Effect.provide(Transport.Transport, network.host("target"))
    const listener = yield* transport.listen(target)
    const answer = (connection: Transport.Connection) =>
      Effect.ignore(Effect.zipRight(connection.read, Effect.zipRight(connection.write(utf8("hi")), connection.end)))
    yield* Effect.forkScoped(Transport.serve(listener, answer))
    return yield* program({ network, start, visit })
  }).pipe(Effect.scoped)
  return Simulated.run({ seed: 11, network, maxSteps: 20_000_000 }, () => main)
}

const idle = (tunnel: Tunnel.Tunnel["Type"]) => Effect.map(tunnel.checkpoint, ({ pool }) => pool.idle)
const seconds = (count: number) => Effect.sleep(Duration.seconds(count))

describe("the pool of a tunnel", () => {
  it("is filled to its minimum, and never beyond the server's maximum", () => {
    const [plenty, few] = [1024, 5].map((max) =>
      world(20, ({ start }) =>
        Effect.gen(function* () {
          const server = yield* start("server", { ...serverConfig, max })
          const client = yield* start("client", clientConfig)
          yield* seconds(3)
          return [yield* idle(server), yield* idle(client)]
        })
      )
    )
    assert.deepStrictEqual(
      [plenty, few],
      [
        [64, 64],
        [5, 5]
      ]
    )
  })

  it("serves hundreds of visitors that come at once within a few round trips, and shrinks back", () => {
    const latency = 25
    const [answers, took, later] = world(latency, ({ start, visit }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        yield* start("client", clientConfig)
        yield* seconds(3)
        const [took, answers] = yield* Effect.timed(
          Effect.all(
            Array.from({ length: runs(120, 500) }, () => visit),
            { concurrency: "unbounded" }
          )
        )
        yield* seconds(120)
        return [answers, Duration.toMillis(took), yield* idle(server)] as const
      })
    )
    assert.deepStrictEqual(new Set(answers), new Set(["hi"]))
    assert.isAtMost(took, 30 * 2 * latency)
    assert.isAtMost(later, 70)
  })

  it("a visitor that finds it empty is served at once, not after the interval", () => {
    const latency = 10
    const took = world(latency, ({ start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", { ...serverConfig, max: 1 })
        yield* start("client", { ...clientConfig, min: 1 })
        yield* seconds(10)
        const [took] = yield* Effect.timed(Effect.all([visit, visit], { concurrency: 2 }))
        return Duration.toMillis(took)
      })
    )
    // A launch, a pool connection in two round trips, a dial, and the answer.
    assert.isAtMost(took, 14 * 2 * latency)
  })

  it("replaces connections that fail", () => {
    const filled = world(20, ({ network, start }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        yield* start("client", clientConfig)
        yield* seconds(3)
        const first = { seen: false }
        yield* network.cut("server", "client", {
          // All except the control connection, which is the oldest.
          where: () => first.seen || !(first.seen = true)
        })
        yield* seconds(3)
        return yield* idle(server)
      })
    )
    assert.strictEqual(filled, 64)
  })

  it("connections that died without an end or a reset are out within 10 seconds, on both sides, and replaced", () => {
    const [before, after, open] = world(20, ({ network, start }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        yield* start("client", clientConfig)
        yield* seconds(20)
        const before = network.open()
        const first = { seen: false }
        // All except the control connection, which is the oldest.
        yield* network.swallow("server", "client", { where: () => first.seen || !(first.seen = true) })
        yield* seconds(10)
        return [before, network.open(), yield* idle(server)] as const
      })
    )
    assert.deepStrictEqual([after, open], [before, 64])
  })

  it("a control connection that died without an end or a reset is replaced within three report intervals", () => {
    const took = world(20, ({ network, start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        yield* start("client", clientConfig)
        yield* seconds(20)
        yield* network.swallow("server", "client", { limit: 1 })
        yield* seconds(3 * 5)
        const [took] = yield* Effect.timed(visit)
        return Duration.toMillis(took)
      })
    )
    assert.isAtMost(took, 14 * 2 * 20)
  })

  it("a flush replaces every connection and interrupts no visitor", () => {
    const [answers, filled] = world(20, ({ start, visit }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        const client = yield* start("client", clientConfig)
        yield* seconds(3)
        const visits = Effect.all(
          Array.from({ length: 100 }, () => visit),
          { concurrency: "unbounded" }
        )
        const [answers] = yield* Effect.all([visits, client.flush, Effect.delay(server.flush, "30 millis")], {
          concurrency: "unbounded"
        })
        yield* seconds(3)
        return [answers, yield* idle(server)] as const
      })
    )
    assert.deepStrictEqual(new Set(answers), new Set(["hi"]))
    assert.isAtLeast(filled, 64)
  })

  it("connections are handed out in the order of the side that visitors connect to, which says when it cannot", () => {
    const orders: Array<readonly [string, string | undefined]> = []
    const noted = Layer.effect(
      PoolFactory.PoolFactory,
      Effect.map(PoolFactory.PoolFactory, ({ accepting, dialing }) => ({
        accepting: (options) => {
          orders.push([options.visitors, options.order])
          return accepting(options)
        },
        dialing: (options) => {
          orders.push([options.visitors, options.order])
          return dialing(options)
        }
      }))
    )
    const warnings = SmallWorld.run({ host: Layer.provide(noted, PoolFactory.layer) }, ({ start, visit, warnings }) =>
      Effect.gen(function* () {
        const server = yield* start("server", { ...SmallWorld.serverConfig, pool: "fastest", streams: false })
        yield* start("client", { ...SmallWorld.clientConfig, pool: "newest" })
        yield* server.ready
        assert.strictEqual(yield* visit, "hi")
        return warnings.filter((text) => text.includes("pool="))
      })
    )
    assert.sameDeepMembers(orders, [
      ["local", "fastest"],
      ["remote", "newest"]
    ])
    assert.deepStrictEqual(warnings, [
      "pool=fastest: this system does not measure the round trip of pool connections; the one that has been idle longest is handed out, as with pool=oldest"
    ])
  })

  it("a steady rise of visitors is led: after twelve seconds each finds a connection in place", () => {
    const found = world(25, ({ start, visit }) =>
      Effect.gen(function* () {
        const server = yield* start("server", { ...serverConfig, streams: false })
        yield* start("client", { ...clientConfig, streams: false, min: 1 })
        yield* seconds(3.5)
        const found: Array<readonly [number, number]> = []
        for (let visitors = 1; visitors <= 18; visitors++) {
          found.push([visitors, yield* idle(server)])
          yield* Effect.forkScoped(Effect.replicateEffect(visit, visitors, { concurrency: "unbounded", discard: true }))
          yield* seconds(1)
        }
        return found
      })
    )
    assert.deepStrictEqual(
      found.slice(13).filter(([visitors, idle]) => idle < visitors),
      []
    )
  })

  it("the fifth of regular bursts finds its connections in place; between two bursts they are not kept", () => {
    const [size, latency, period] = [20, 25, 7.3]
    const { before, between, fifth, first, one } = world(latency, ({ start, visit }) =>
      Effect.gen(function* () {
        const server = yield* start("server", { ...serverConfig, streams: false })
        yield* start("client", { ...clientConfig, streams: false, min: 2 })
        yield* seconds(3)
        const timed = (count: number) =>
          Effect.replicateEffect(visit, count, { concurrency: "unbounded", discard: true }).pipe(
            Effect.timed,
            Effect.map(([took]) => Duration.toMillis(took))
          )
        const one = yield* timed(1)
        const first = yield* timed(size)
        yield* seconds(period)
        yield* Effect.repeatN(Effect.zipRight(timed(size), seconds(period)), 1)
        yield* timed(size)
        yield* seconds(3.5)
        const between = yield* idle(server)
        yield* seconds(period - 3.5)
        const before = yield* idle(server)
        return { before, between, fifth: yield* timed(size), first, one }
      })
    )
    assert.isBelow(between, size / 2)
    assert.isAtLeast(before, size)
    // Opening a pool connection takes two round trips.
    assert.isAtLeast(first, one + 2 * 2 * latency)
    assert.isAtMost(fifth, one + 2 * latency)
  })
})
