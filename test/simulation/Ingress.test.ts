import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Address from "../../src/core/Address.js"
import * as Capacity from "../../src/relay/Capacity.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as Ingress from "../../src/relay/Ingress.js"
import * as Meter from "../../src/relay/Meter.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as PortableRelay from "../../src/relay/PortableRelay.js"
import * as Settings from "../../src/transport/Settings.js"
import * as Slots from "../../src/relay/Slots.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Throttle from "../../src/relay/Throttle.js"
import { type Listener, Transport, TransportError } from "../../src/transport/Transport.js"
import * as EventBus from "../../src/core/EventBus.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

const services = Layer.mergeAll(
  Deadlines.layer,
  Settings.layer(),
  Slots.layer().pipe(Layer.provideMerge(Refusals.layer), Layer.provide(Capacity.layerUnlimited)),
  PortableRelay.layer().pipe(Layer.provide(Layer.merge(Meter.layer, Throttle.layer())))
).pipe(Layer.provide(EventBus.layerNoop))

/** The most visitors that were accepted and waited at a time, and how many were served in the end. */
const flood = (seed: number, visitors: number, maxOpening: number) => {
  const network = SimNetwork.make({ latency: 1 })
  let waiting = 0
  let peak = 0
  let served = 0
  const main = Effect.gen(function* () {
    const [here, there] = yield* Effect.all([
      Effect.provide(Transport, network.host("visitors")),
      Effect.provide(Transport, network.host("server"))
    ])
    const address = Address.make("server", 1)
    const listener = yield* there.listen(address)
    let accepted = 0
    const counting: Listener = {
      ...listener,
      accept: Effect.tap(listener.accept, () => Effect.sync(() => accepted++))
    }
    const opening = yield* Effect.makeSemaphore(2)
    const open = opening.withPermits(1)(
      Effect.gen(function* () {
        yield* Effect.sleep(Duration.millis(10))
        waiting = accepted - served++
        peak = Math.max(peak, waiting)
        return yield* new TransportError({ operation: "connect", reason: "Refused", address })
      })
    )
    yield* Effect.forkScoped(
      Ingress.serve({ listener: counting, open: () => open, maxOpening, refusal: "pool", proxyIn: false })
    )
    const visit = Effect.scoped(Effect.flatMap(here.connect(address), ({ read }) => Effect.ignore(read)))
    yield* Effect.replicateEffect(visit, visitors, { concurrency: "unbounded", discard: true })
  }).pipe(Effect.scoped, Effect.provide(services))
  Simulated.run({ seed, network }, () => main)
  return { peak, served }
}

describe("Ingress", () => {
  it.prop(
    "has at most `maxOpening` visitors wait for their connections, and serves all of them in the end",
    [FastCheck.integer(), FastCheck.integer({ min: 1, max: 100 }), FastCheck.integer({ min: 2, max: 20 })],
    ([seed, visitors, maxOpening]) => {
      const { peak, served } = flood(seed, visitors, maxOpening)
      assert.strictEqual(served, visitors)
      assert.isAtMost(peak, maxOpening)
    },
    { fastCheck: { numRuns: runs(15, 60) } }
  )
})
