import { assert, describe } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { constFalse, constVoid } from "effect/Function"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as EventBus from "../../src/core/EventBus.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as Capacity from "../../src/relay/Capacity.js"
import { DatagramRelay } from "../../src/relay/DatagramRelay.js"
import * as Egress from "../../src/relay/Egress.js"
import { Relay } from "../../src/relay/Relay.js"
import * as Slots from "../../src/relay/Slots.js"
import * as Targets from "../../src/relay/Targets.js"
import * as Settings from "../../src/transport/Settings.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import { ConnectionId, makeLaunch } from "../../src/wire/Signal.js"
import { it } from "../Simulated.js"

const target = Address.make("target", 80)
const launch = makeLaunch({
  id: ConnectionId.make("00000000"),
  protocol: "tcp",
  visitor: Address.make("192.0.2.1", 9),
  entry: Option.none()
})
/** As many as are dialled at a time. */
const limit = 1024

/** Launches to a target that never answers. */
const makeWorld = () => {
  const dials = { begun: 0, now: 0 }
  const connect = Effect.acquireUseRelease(
    Effect.sync(() => {
      dials.begun++
      dials.now++
    }),
    () => Effect.never,
    () => Effect.sync(() => void dials.now--)
  )
  const layers = Egress.layer().pipe(
    Layer.provideMerge(Targets.layer({ targets: [target] })),
    Layer.provideMerge(
      Layer.mock(Relay, {
        description: "played",
        progress: () => undefined,
        commit: constVoid,
        exchangeNow: constFalse
      })
    ),
    Layer.provide(Layer.mock(DatagramRelay, { progress: () => undefined, commit: constVoid })),
    Layer.provideMerge(Layer.mock(Transport, { connect: () => connect, connectNow: () => undefined })),
    Layer.provideMerge(Slots.layer()),
    Layer.provideMerge(Refusals.layer),
    Layer.provide([Capacity.layer(Infinity), EventBus.layerNoop]),
    Layer.provide(Settings.layer({ tcpDialTimeout: Duration.minutes(10), poolGetTimeout: Duration.seconds(30) })),
    Layer.provideMerge(Deadlines.layer)
  )
  return { dials, layers }
}

/** The stream of a visitor, who may leave. */
const makeVisitor = () => {
  const visitor = { wasReset: false, leave: constVoid }
  const reset = Effect.sync(() => void (visitor.wasReset = true))
  const take: Effect.Effect<Connection, never, Scope.Scope> = Effect.succeed({ remote: target, reset } as Connection)
  const source: Egress.LaunchSource = {
    take,
    refuse: () => Effect.void,
    onOver: (listener) => (visitor.leave = listener)
  }
  return { source, visitor }
}

describe("launches to a target that does not answer", () => {
  const late = makeWorld()
  it.simulated("wait for their turn for a bounded time, and are counted", { layers: late.layers }, () =>
    Effect.gen(function* () {
      const egress = yield* Egress.Egress
      const { counts } = yield* Refusals.Refusals
      for (let count = 0; count < limit; count++) yield* egress.launch(launch, makeVisitor().source)
      const { source, visitor } = makeVisitor()
      const waiting = yield* Effect.fork(egress.launch(launch, source))
      yield* Effect.sleep("29 seconds")
      assert.deepStrictEqual([visitor.wasReset, late.dials.begun], [false, limit])
      yield* Effect.sleep("2 seconds")
      yield* Fiber.join(waiting)
      assert.deepStrictEqual([visitor.wasReset, (yield* counts).target], [true, 1])
    })
  )

  const left = makeWorld()
  it.simulated("are given up when their visitors leave, and let others have their turn", { layers: left.layers }, () =>
    Effect.gen(function* () {
      const egress = yield* Egress.Egress
      const { counts } = yield* Refusals.Refusals
      const visitors = Array.from({ length: limit }, makeVisitor)
      for (const { source } of visitors) yield* egress.launch(launch, source)
      const waiting = yield* Effect.forEach([1, 2, 3, 4], () =>
        Effect.fork(egress.launch(launch, makeVisitor().source))
      )
      yield* Effect.sleep("1 second")
      assert.deepStrictEqual(left.dials, { begun: limit, now: limit })
      // One that waits leaves, and so do two that are dialled.
      yield* Effect.forEach(waiting.slice(0, 1), Fiber.interrupt)
      for (const { visitor } of visitors.slice(0, 2)) visitor.leave()
      yield* Effect.sleep("1 second")
      assert.deepStrictEqual(left.dials, { begun: limit + 2, now: limit })
      for (const { visitor } of visitors) visitor.leave()
      yield* Effect.sleep("1 second")
      assert.deepStrictEqual(left.dials, { begun: limit + 3, now: 3 })
      assert.isTrue(visitors.every(({ visitor }) => visitor.wasReset))
      assert.strictEqual((yield* counts).target, 0)
    })
  )
})
