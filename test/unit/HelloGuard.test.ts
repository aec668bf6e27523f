import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as Address from "../../src/core/Address.js"
import * as HelloGuard from "../../src/tunnel/HelloGuard.js"
import { clockTolerance } from "../../src/wire/HandshakeError.js"

const guard = () => Effect.runSync(HelloGuard.make)
const keyOf = (n: number) => Uint8Array.of(n >> 24, n >> 16, n >> 8, n)

describe("the memory of first messages", () => {
  it("refuses each a second time, for as long as its time could be accepted", () => {
    const { isNew } = guard()
    assert.isTrue(isNew(keyOf(1), 0))
    assert.isTrue(isNew(keyOf(2), 1000))
    for (const now of [0, 1, clockTolerance, 2 * clockTolerance - 1]) assert.isFalse(isNew(keyOf(1), now))
    assert.isTrue(isNew(keyOf(1), 2 * clockTolerance))
    assert.isFalse(isNew(keyOf(2), 2 * clockTolerance))
  })

  it("accepts no other one while it is full, so that none is forgotten too early", () => {
    const { isNew } = guard()
    for (let n = 0; n < HelloGuard.maxHellos; n++) assert.isTrue(isNew(keyOf(n), 0))
    assert.isFalse(isNew(keyOf(HelloGuard.maxHellos), 1))
    assert.isFalse(isNew(keyOf(0), 1))
    assert.isTrue(isNew(keyOf(HelloGuard.maxHellos), 2 * clockTolerance))
  })

  it("does not keep for ever what a clock that was ahead remembered", () => {
    const { isNew } = guard()
    assert.isTrue(isNew(keyOf(1), 10 * clockTolerance))
    assert.isTrue(isNew(keyOf(2), 0))
    assert.isTrue(isNew(keyOf(3), 0))
  })
})

describe("stretching for strangers", () => {
  const from = (host: string) => Address.make(host, 1)

  it.effect("is limited for a network, and does not take it from another one", () =>
    Effect.gen(function* () {
      const { stretch } = yield* HelloGuard.make
      const ask = (host: string) => Effect.map(stretch(from(host), Effect.succeed(1)), Option.isSome)
      const flood = yield* Effect.forEach([1, 2, 3, 4, 5, 6], (n) => ask(`203.0.113.${n}`))
      assert.deepStrictEqual(flood, [true, true, true, false, false, false])
      assert.isTrue(yield* ask("198.51.100.1"))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual([yield* ask("203.0.113.9"), yield* ask("203.0.113.9")], [true, false])
    })
  )

  it.effect("is limited for all networks together, to one a second after the first eight", () =>
    Effect.gen(function* () {
      const { stretch } = yield* HelloGuard.make
      let next = 0
      const ask = Effect.suspend(() =>
        Effect.map(stretch(from(`10.${next >> 8}.${next++ & 255}.1`), Effect.succeed(1)), Option.isSome)
      )
      const count = (asked: number) =>
        Effect.map(Effect.replicateEffect(ask, asked), (given) => given.filter(Boolean).length)
      assert.strictEqual(yield* count(3000), 8)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* count(3000), 3)
    })
  )

  it.effect("runs one at a time", () =>
    Effect.gen(function* () {
      const { stretch } = yield* HelloGuard.make
      let running = 0
      let peak = 0
      const stretching = Effect.acquireUseRelease(
        Effect.sync(() => (peak = Math.max(peak, ++running))),
        () => Effect.yieldNow(),
        () => Effect.sync(() => running--)
      )
      const hosts = ["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"]
      yield* Effect.forEach(hosts, (host) => stretch(from(host), stretching), { concurrency: 4 })
      assert.strictEqual(peak, 1)
    })
  )
})
