import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as FastCheck from "effect/FastCheck"
import * as Forecast from "../../src/pool/Forecast.js"
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
    const { capacity, expected, interval, rate } = after(steps)
    assert.isTrue(Number.isInteger(expected) && expected >= 0 && expected <= 64)
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

  it.prop(
    "yields a whole number within its bounds for every interval, even none",
    [
      FastCheck.constantFrom(
        Duration.zero,
        Duration.nanos(1n),
        Duration.millis(1),
        Duration.hours(500),
        Duration.infinity
      ),
      FastCheck.array(observed, { minLength: 20 })
    ],
    ([maxInterval, steps]) => {
      const bounds = { ...options, minInterval: Duration.zero, maxInterval }
      let state = PoolPolicy.initial(bounds)
      for (const step of steps) {
        state = PoolPolicy.next(state, step, bounds)
        assert.isTrue(Number.isInteger(state.capacity) && state.capacity >= 4 && state.capacity <= 64)
        assert.isTrue(Number.isInteger(state.expected) && state.expected <= 64)
      }
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

  /** Steps of one second with this demand each, of a pool that is kept full; `forget` is called before each step. */
  const statesOf = (
    demand: ReadonlyArray<number>,
    options: PoolPolicy.Options,
    forget = (state: PoolPolicy.State) => state
  ) => {
    let state = PoolPolicy.initial(options)
    return demand.map((taken) => {
      const idle = Math.max(0, state.capacity - taken)
      const observed = { elapsed: 1000, idle, taken, opened: taken, failed: 0 }
      return (state = PoolPolicy.next(forget(state), observed, options))
    })
  }
  const wide = { ...options, maxCapacity: 10_000 }
  const withoutPast = (state: PoolPolicy.State) => ({ ...state, past: Forecast.initial })

  it.prop(
    "leads a steady rise: each interval finds the capacity for its demand, which the rate alone would give later",
    [FastCheck.integer({ min: 1, max: 50 })],
    ([slope]) => {
      const demand = Array.from({ length: 40 }, (_, at) => at * slope)
      const [led, followed] = [statesOf(demand, wide), statesOf(demand, wide, withoutPast)]
      // What is decided after an interval is in force from the end of the next.
      for (let at = 15; at < demand.length; at++) {
        assert.isAtLeast(led[at]?.capacity ?? 0, (at + 2) * slope)
        if (slope > 1) assert.isBelow(followed[at]?.capacity ?? 0, at * slope)
      }
    }
  )

  it.prop(
    "expects the fifth of regular bursts, and keeps its connections only until then",
    [FastCheck.integer({ min: 5, max: 60 }), FastCheck.integer({ min: 10, max: 1000 })],
    ([period, size]) => {
      const states = statesOf(
        Array.from({ length: 4 * period + 1 }, (_, at) => (at % period === 0 ? size : 0)),
        wide
      )
      assert.strictEqual(states[4 * period - 2]?.expected, size)
      assert.strictEqual(states[4 * period]?.expected, 0)
      assert.isTrue(states.slice(0, 2 * period).every(({ expected }) => expected === 0))
    }
  )

  it.prop(
    "adapts to the rate alone where the demand is neither regular nor rises",
    [FastCheck.array(FastCheck.nat(500), { minLength: 1, maxLength: 9 })],
    ([few]) => {
      const levels = few.flatMap((level) => Array.from({ length: 12 }, () => level)).slice(0, 60)
      // Nine intervals are too few for either; a level that changes by steps is neither.
      for (const demand of [few, Array.from({ length: 60 }, () => levels[0] ?? 0), levels.slice(0, 24)]) {
        const [states, others] = [statesOf(demand, wide), statesOf(demand, wide, withoutPast)]
        assert.deepStrictEqual(
          states.map(({ capacity, expected }) => ({ capacity, expected })),
          others.map(({ capacity }) => ({ capacity, expected: 0 }))
        )
      }
    }
  )
})
