import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as FastCheck from "effect/FastCheck"
import * as PoolPolicy from "../../src/pool/PoolPolicy.js"

const options: PoolPolicy.Options = {
  minCapacity: 4,
  maxCapacity: 64,
  minInterval: Duration.millis(100),
  maxInterval: Duration.seconds(1)
}
const observed = FastCheck.record({
  elapsed: FastCheck.integer({ min: 0, max: 5000 }),
  idle: FastCheck.nat(200),
  taken: FastCheck.nat(200),
  opened: FastCheck.nat(200),
  failed: FastCheck.nat(200)
})
const quiet = { elapsed: 1000, idle: 0, taken: 0, opened: 0, failed: 0 }
const after = (steps: ReadonlyArray<PoolPolicy.Observed>) =>
  steps.reduce((state, step) => PoolPolicy.next(state, step, options), PoolPolicy.initial(options))

describe("PoolPolicy", () => {
  it.prop("stays within its bounds, whatever it observes", [FastCheck.array(observed)], ([steps]) => {
    const { capacity, interval, rate } = after(steps)
    assert.isTrue(Number.isInteger(capacity) && capacity >= 4 && capacity <= 64)
    assert.isTrue(Duration.between(interval, { minimum: Duration.millis(100), maximum: Duration.seconds(1) }))
    assert.isTrue(Number.isFinite(rate) && rate >= 0)
  })

  it.prop(
    "at most doubles the capacity in one step, and shrinks it by at most a fifth",
    [FastCheck.array(observed), observed],
    ([steps, step]) => {
      const before = after(steps)
      const { capacity } = PoolPolicy.next(before, step, options)
      assert.isAtMost(capacity, before.capacity * 2)
      assert.isAtLeast(capacity, Math.floor(before.capacity * 0.8))
    }
  )

  it("reaches what one second at the present rate takes", () => {
    const { capacity } = after(Array.from({ length: 20 }, () => ({ ...quiet, idle: 20, taken: 40, opened: 40 })))
    assert.isAtLeast(capacity, 39)
  })

  it("returns to the minimum capacity and the longest interval without visitors", () => {
    const busy = Array.from({ length: 20 }, () => ({ ...quiet, idle: 0, taken: 60, opened: 60 }))
    const idle = Array.from({ length: 60 }, () => ({ ...quiet, idle: 200 }))
    const { capacity, interval } = after([...busy, ...idle])
    assert.strictEqual(capacity, 4)
    assert.strictEqual(Duration.toMillis(interval), 1000)
  })

  it("shrinks the capacity and lengthens the interval while nearly every dial fails", () => {
    const grown = after(Array.from({ length: 20 }, () => ({ ...quiet, taken: 60, opened: 60 })))
    const failing = PoolPolicy.next(grown, { ...quiet, failed: 10 }, options)
    assert.isBelow(failing.capacity, grown.capacity)
    assert.isTrue(Duration.greaterThan(failing.interval, grown.interval))
  })
})
