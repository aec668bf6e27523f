/**
 * The parts of a tunnel that a host replaces by layers of its own.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Pool } from "../../src/pool/Pool.js"
import * as PoolFactory from "../../src/pool/PoolFactory.js"
import * as PoolPolicy from "../../src/pool/PoolPolicy.js"
import { SignalBus } from "../../src/signal/SignalBus.js"
import * as SignalBusFactory from "../../src/signal/SignalBusFactory.js"
import * as SmallWorld from "./worlds/SmallWorld.js"

/** Both sides run on hosts with this layer, and one visitor is served; completes with the client's pool figures. */
const serveOne = (host: Layer.Layer<never>) =>
  SmallWorld.run({ host }, ({ start, visit }) =>
    Effect.gen(function* () {
      const server = yield* start("server", { ...SmallWorld.serverConfig, streams: false })
      const client = yield* start("client", SmallWorld.clientConfig)
      yield* server.ready
      yield* Effect.sleep(Duration.seconds(5))
      assert.strictEqual(yield* visit, "hi")
      yield* Effect.sleep(Duration.seconds(5))
      return (yield* client.checkpoint).pool
    })
  )

describe("a host's own parts", () => {
  it("the pool keeps as many connections idle as the host's policy yields", () => {
    const fixed = Layer.succeed(PoolPolicy.PoolPolicy, {
      initialCapacity: () => 3,
      schedule: () => Schedule.as(Schedule.spaced("1 second"), { capacity: 3 })
    })
    assert.deepStrictEqual(serveOne(fixed), { idle: 3, capacity: 3, waiting: 0 })
  })

  it("the pool keeps the last capacity when the host's policy ends", () => {
    const ending = Layer.succeed(PoolPolicy.PoolPolicy, {
      initialCapacity: () => 3,
      schedule: () => Schedule.as(Schedule.recurs(1), { capacity: 5 })
    })
    assert.deepStrictEqual(serveOne(ending), { idle: 5, capacity: 5, waiting: 0 })
  })

  it("the pool stays within its maximum, whatever the host's policy yields", () => {
    const boundless = Layer.succeed(PoolPolicy.PoolPolicy, {
      initialCapacity: () => 1_000_000,
      schedule: () => Schedule.as(Schedule.spaced("1 second"), { capacity: 1_000_000 })
    })
    const { max } = SmallWorld.serverConfig
    assert.deepStrictEqual(serveOne(boundless), { idle: max, capacity: max, waiting: 0 })
  })

  it("a visitor is served from the host's pools", () => {
    const taken: Array<string> = []
    const counted = (kind: string, pool: Pool["Type"]) =>
      Pool.of({
        ...pool,
        takeAny: Effect.tap(pool.takeAny, () => Effect.sync(() => taken.push(`${kind}: any`))),
        take: (id) => Effect.tap(pool.take(id), () => Effect.sync(() => taken.push(`${kind}: named`)))
      })
    const counting = Layer.effect(
      PoolFactory.PoolFactory,
      Effect.map(PoolFactory.PoolFactory, ({ accepting, dialing }) => ({
        accepting: (options) =>
          Layer.map(accepting(options), (made) =>
            Context.add(made, Pool, counted("accepting", Context.get(made, Pool)))
          ),
        dialing: (options) => Layer.project(dialing(options), Pool, Pool, (pool) => counted("dialing", pool))
      }))
    )
    serveOne(Layer.provide(counting, PoolFactory.layer))
    assert.deepStrictEqual(taken, ["accepting: any", "dialing: named"])
  })

  it("a visitor is launched over the host's signal bus", () => {
    let launches = 0
    const counting = Layer.effect(
      SignalBusFactory.SignalBusFactory,
      Effect.map(SignalBusFactory.SignalBusFactory, ({ layer }) => ({
        layer: (options) =>
          Layer.project(layer(options), SignalBus, SignalBus, (bus) =>
            SignalBus.of({
              ...bus,
              launch: (...launch) => Effect.tap(bus.launch(...launch), () => Effect.sync(() => launches++))
            })
          )
      }))
    )
    serveOne(Layer.provide(counting, SignalBusFactory.layer))
    assert.strictEqual(launches, 1)
  })
  it("a host sees the signals of its tunnel, in both directions", () => {
    const seen: Array<string> = []
    const answer = SmallWorld.run({ link: { latency: 10 } }, ({ start, visit }) =>
      Effect.gen(function* () {
        const server = yield* start("server", { ...SmallWorld.serverConfig, streams: false })
        const listening = Stream.runForEach(server.signals(), (signal) =>
          Effect.sync(() => signal._tag === "Signal" && seen.push(`${signal.direction} ${signal.signal._tag}`))
        )
        yield* Effect.forkScoped(listening)
        const client = yield* start("client", SmallWorld.clientConfig)
        yield* client.ready
        return yield* visit
      })
    )
    assert.strictEqual(answer, "hi")
    assert.includeMembers(seen, ["received Ping", "sent Pong", "sent Launch"])
  })
})
