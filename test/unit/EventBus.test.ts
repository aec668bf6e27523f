import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as EventBus from "../../src/core/EventBus.js"
import type { TunnelEvent } from "../../src/core/TunnelEvent.js"
import { runs } from "../Runs.js"

const event = (times: number): TunnelEvent => ({ _tag: "Refused", kind: "slot", why: "full", times })
const numberOf = (event: TunnelEvent) => (event._tag === "Refused" ? event.times : Number.NaN)

/** Publishes this many numbered events. Each listener takes the first and no other until all are published. */
const world = (count: number, capacities: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const services = yield* Layer.buildWithScope(EventBus.layer, scope)
    const bus = yield* Effect.provide(EventBus.EventBus, services)
    const all = yield* Effect.makeLatch()
    const listeners = yield* Effect.forEach(capacities, (capacity) =>
      Effect.gen(function* () {
        const received: Array<TunnelEvent> = []
        const events = yield* bus.subscribe({ capacity })
        const listening = Stream.runForEach(events, (event) =>
          Effect.zipRight(
            Effect.sync(() => received.push(event)),
            all.await
          )
        )
        return { capacity, received, fiber: yield* Effect.fork(listening) }
      })
    )
    for (let number = 0; number < count; number++) yield* bus.publish(() => event(number))
    // Let the fiber between the publisher and the listeners run.
    yield* Effect.yieldNow()
    yield* all.open
    yield* Scope.close(scope, Exit.void)
    yield* Effect.forEach(listeners, ({ fiber }) => Fiber.await(fiber))
    return listeners
  }).pipe(Effect.scoped)

describe("EventBus", () => {
  it.effect.prop(
    "a listener receives all events in order, or `Lagged` with the number that it lost",
    [
      FastCheck.integer({ min: 0, max: 1500 }),
      FastCheck.array(FastCheck.integer({ min: 1, max: 200 }), { maxLength: 4 })
    ],
    ([count, capacities]) =>
      Effect.map(world(count, capacities), (listeners) => {
        for (const { received } of listeners) {
          let expected = 0
          for (const event of received) {
            if (event._tag === "Lagged") {
              assert.isAbove(event.lost, 0)
              expected += event.lost
            } else assert.strictEqual(numberOf(event), expected++)
          }
          assert.strictEqual(expected, count)
        }
      }),
    { fastCheck: { numRuns: runs(20, 100) } }
  )

  it.effect("a listener that does not keep up holds no more than its buffer and delays no other", () =>
    Effect.gen(function* () {
      const bus = yield* EventBus.EventBus
      const slow = yield* bus.subscribe({ capacity: 16 })
      const quick = yield* bus.subscribe({ capacity: 16 })
      const stuck = yield* Effect.fork(Stream.runForEach(slow, () => Effect.never))
      const received = yield* Effect.fork(Stream.runCollect(Stream.take(quick, 5000)))
      for (let number = 0; number < 5000; number++) {
        yield* bus.publish(() => event(number))
        yield* Effect.yieldNow()
      }
      const numbers = Chunk.map(yield* Fiber.join(received), numberOf)
      assert.deepStrictEqual(
        Chunk.toReadonlyArray(numbers),
        Array.from({ length: 5000 }, (_, number) => number)
      )
      yield* Fiber.interrupt(stuck)
    }).pipe(Effect.scoped, Effect.provide(EventBus.layer))
  )

  it.effect("makes no event while there is no listener", () =>
    Effect.gen(function* () {
      const bus = yield* EventBus.EventBus
      let made = 0
      const publish = bus.publish(() => event(made++))
      yield* publish
      yield* Effect.scoped(Effect.zipRight(bus.subscribe(), publish))
      yield* publish
      assert.strictEqual(made, 1)
    }).pipe(Effect.provide(EventBus.layer))
  )
})
