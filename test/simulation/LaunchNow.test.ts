import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as EventBus from "../../src/core/EventBus.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as Capacity from "../../src/relay/Capacity.js"
import { DatagramRelay } from "../../src/relay/DatagramRelay.js"
import * as Egress from "../../src/relay/Egress.js"
import type { LaunchedStream } from "../../src/relay/LaunchNow.js"
import { type Attendant, Relay } from "../../src/relay/Relay.js"
import * as Slots from "../../src/relay/Slots.js"
import * as Targets from "../../src/relay/Targets.js"
import type { StreamHandle } from "../../src/stream/StreamHandle.js"
import * as Settings from "../../src/transport/Settings.js"
import { type Dialler, type OwnedByCaller, Transport, TransportError } from "../../src/transport/Transport.js"
import { ConnectionId, makeLaunch } from "../../src/wire/Signal.js"
import { it } from "../Simulated.js"

const target = Address.make("target", 80)
const other = Address.make("other", 80)
const refused = new TransportError({ operation: "connect", reason: "Refused", address: target })
const fields = {
  id: ConnectionId.make("00000000"),
  protocol: "tcp",
  visitor: Address.make("192.0.2.1", 9),
  entry: Option.none()
} as const
const launch = makeLaunch(fields)

/** A Transport and a Relay that the test plays, and what was asked of them. */
const makeWorld = (options: Targets.Options = { targets: [target] }, slots = 1) => {
  const dials: Array<{ readonly to: Address.Address; readonly on: Dialler; cancelled: boolean }> = []
  const exchanges: Array<Attendant> = []
  const stream = { byFiber: 0, closed: 0, over: undefined as (() => void) | undefined }
  const launched: LaunchedStream = {
    handle: { remote: target } as StreamHandle,
    onOver: (listener) => (stream.over = listener),
    serveByFiber: () => stream.byFiber++
  }
  const near = { local: target, remote: target, close: () => void stream.closed++ } as OwnedByCaller
  const layers = Egress.layer().pipe(
    Layer.provideMerge(Targets.layer(options)),
    Layer.provideMerge(
      Layer.mock(Relay, {
        description: "played",
        progress: () => undefined,
        commit: constVoid,
        exchangeNow: (_, attendant) => {
          exchanges.push(attendant)
          return attendant.open() === launched.handle
        }
      })
    ),
    Layer.provide(Layer.mock(DatagramRelay, { progress: () => undefined, commit: constVoid })),
    Layer.provideMerge(
      Layer.mock(Transport, {
        connectNow: (to, on) => {
          const dial = { to, on, cancelled: false }
          dials.push(dial)
          return () => (dial.cancelled = true)
        }
      })
    ),
    Layer.provideMerge(Slots.layer({ limit: slots })),
    Layer.provideMerge(Refusals.layer),
    Layer.provide([Capacity.layer(Infinity), EventBus.layerNoop, Settings.layer()]),
    Layer.provideMerge(Deadlines.layer),
    Layer.provide(Layer.setTracerEnabled(false))
  )
  return { dials, exchanges, launched, layers, near, stream }
}

/** Whether the only slot is free. */
const isFree = Effect.map(Slots.Slots, ({ acquireNow }) => {
  const release = acquireNow()
  release?.()
  return release !== undefined
})

describe("a launch without a fiber", () => {
  const served = makeWorld()
  it.simulated("holds a slot from the dial to the end of the exchange", { layers: served.layers }, () =>
    Effect.gen(function* () {
      const { launchNow } = yield* Egress.Egress
      const { dials, exchanges, launched, near, stream } = served
      assert.isTrue(launchNow(launch, launched))
      assert.isFalse(yield* isFree)
      // All slots are in use: that is for a fiber, which counts the refusal.
      assert.isFalse(launchNow(launch, launched))
      dials[0]?.on.opened(near)
      assert.isFalse(yield* isFree)
      yield* Effect.sleep("2 seconds")
      exchanges[0]?.ended(undefined)
      assert.isTrue(yield* isFree)
      assert.deepStrictEqual([stream.closed, stream.byFiber, dials.length], [1, 0, 1])
    })
  )

  for (const how of ["is refused", "does not answer within a second"] as const) {
    const world = makeWorld()
    it.simulated(`is begun anew by a fiber when the target ${how}`, { layers: world.layers }, () =>
      Effect.gen(function* () {
        const { launchNow } = yield* Egress.Egress
        const { dials, launched, near, stream } = world
        assert.isTrue(launchNow(launch, launched))
        if (how === "is refused") dials[0]?.on.failed(refused)
        else yield* Effect.sleep("1100 millis")
        assert.deepStrictEqual([stream.byFiber, yield* isFree], [1, true])
        assert.strictEqual(dials[0]?.cancelled, how !== "is refused")
        // It answers too late.
        dials[0]?.on.opened(near)
        assert.deepStrictEqual([stream.byFiber, stream.closed, world.exchanges.length], [1, 1, 0])
      })
    )
  }

  const left = makeWorld()
  it.simulated("cancels the dial for a visitor who leaves", { layers: left.layers }, () =>
    Effect.gen(function* () {
      const { launchNow } = yield* Egress.Egress
      const { dials, launched, stream } = left
      assert.isTrue(launchNow(launch, launched))
      stream.over?.()
      assert.deepStrictEqual([dials[0]?.cancelled, stream.byFiber, yield* isFree], [true, 0, true])
      yield* Effect.sleep("2 seconds")
      assert.strictEqual(stream.byFiber, 0)
    })
  )

  const several = makeWorld({ targets: [target, other], balance: "least" }, 9)
  it.simulated("counts at its target until it ends, and is left to a fiber while a target fails", several, () =>
    Effect.gen(function* () {
      const { launchNow } = yield* Egress.Egress
      const { dials, exchanges, launched, near } = several
      const targets = () => dials.map(({ to }) => to.host).join(" ")
      for (let count = 0; count < 3; count++) {
        assert.isTrue(launchNow(launch, launched))
        dials.at(-1)?.on.opened(near)
      }
      assert.strictEqual(targets(), "target other target")
      exchanges[0]?.ended(undefined)
      exchanges[2]?.ended(undefined)
      assert.isTrue(launchNow(launch, launched))
      assert.strictEqual(targets(), "target other target target")
      dials.at(-1)?.on.failed(refused)
      yield* Effect.yieldNow()
      assert.isFalse(launchNow(launch, launched))
      assert.strictEqual(dials.length, 4)
    })
  )

  it.simulated("is left to a fiber for UDP", { layers: makeWorld().layers }, () =>
    Effect.gen(function* () {
      const { launchNow } = yield* Egress.Egress
      assert.isFalse(launchNow(makeLaunch({ ...fields, protocol: "udp" }), makeWorld().launched))
    })
  )
})
