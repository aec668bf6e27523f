import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { runs } from "../Runs.js"
import * as Forecast from "../../src/pool/Forecast.js"

const after = (demand: ReadonlyArray<number>, from = Forecast.initial) =>
  demand.reduce((state, taken) => Forecast.record(state, { elapsed: 1000, taken }, 1000), from)
const quiet = (intervals: number) => Array.from({ length: intervals }, () => 0)

/** Bursts that come at regular times, which need not be whole intervals. */
const regular = FastCheck.record({
  first: FastCheck.double({ min: 0, max: 20, noNaN: true }),
  period: FastCheck.double({ min: 5, max: 80, noNaN: true }),
  size: FastCheck.integer({ min: 1, max: 1000 }),
  background: FastCheck.nat(100)
})
type Regular = typeof regular extends FastCheck.Arbitrary<infer A> ? A : never
/** The interval of the burst with this number, from 0. */
const timeOf = ({ first, period }: Regular, number: number) => Math.floor(first + number * period)
/** The demand up to an interval, of so many bursts. */
const demandOf = (bursts: Regular, count: number, until: number): ReadonlyArray<number> => {
  const times = new Set(Array.from({ length: count }, (_, number) => timeOf(bursts, number)))
  return Array.from({ length: until }, (_, at) => bursts.background + (times.has(at) ? bursts.size : 0))
}

describe("Forecast", () => {
  it.prop("the fifth of regular bursts is foreseen two intervals before it comes", [regular], ([bursts]) => {
    const fifth = timeOf(bursts, 4)
    const expected = Forecast.burst(after(demandOf(bursts, 4, fifth - 2)))
    assert.strictEqual(expected, bursts.size + bursts.background)
  })

  it.prop("a burst that has come is not expected again before the next", [regular], ([bursts]) => {
    const fifth = timeOf(bursts, 4)
    const begun = Forecast.record(
      after(demandOf(bursts, 4, fifth)),
      { elapsed: 500, taken: bursts.size + bursts.background },
      1000
    )
    assert.strictEqual(Forecast.burst(begun), 0)
    assert.strictEqual(Forecast.burst(after(demandOf(bursts, 5, fifth + 1))), 0)
  })

  it.prop(
    "one burst that fails to come changes nothing, and after three nothing is expected",
    [regular],
    ([bursts]) => {
      const next = timeOf(bursts, 9)
      assert.isAbove(Forecast.burst(after(demandOf(bursts, 8, next - 1))), 0)
      const last = after(demandOf(bursts, 8, timeOf(bursts, 10) + 8))
      const later = Array.from({ length: 200 }).reduce<ReadonlyArray<Forecast.State>>(
        (states) => [...states, after([bursts.background], states.at(-1) ?? last)],
        []
      )
      assert.deepStrictEqual([...new Set(later.map(Forecast.burst))], [0])
    }
  )

  it.prop("two bursts, and an even demand, are no pattern", [regular], ([bursts]) => {
    let state = after(demandOf(bursts, 2, timeOf(bursts, 1)))
    for (let more = 0; more < 100; more++) {
      state = after(demandOf(bursts, 2, timeOf(bursts, 1) + more + 1).slice(-1), state)
      assert.strictEqual(Forecast.burst(state), 0)
    }
    assert.strictEqual(Forecast.burst(after(demandOf(bursts, 0, 100))), 0)
  })

  it.prop(
    "bursts at random times are seldom expected",
    [FastCheck.array(FastCheck.integer({ min: 2, max: 60 }), { minLength: 40, maxLength: 40 })],
    ([gaps]) => {
      const demand = gaps.flatMap((gap) => [...quiet(gap - 1), 50])
      let state = Forecast.initial
      let expected = 0
      for (const taken of demand) {
        state = after([taken], state)
        if (Forecast.burst(state) > 0) expected++
      }
      assert.isBelow(expected, demand.length / 10)
    },
    { fastCheck: { numRuns: runs(5, 500) } }
  )

  it.prop(
    "a steady rise is continued to the next interval but one",
    [FastCheck.integer({ min: 1, max: 100 }), FastCheck.nat(1000), FastCheck.integer({ min: 10, max: 100 })],
    ([step, start, intervals]) => {
      const demand = Array.from({ length: intervals }, (_, at) => start + at * step)
      // The interval that has begun is the one after the last.
      assert.closeTo(Forecast.trend(after(demand)), start + (intervals + 2) * step, 1e-6)
    }
  )

  it.prop(
    "a step from one level to another is no rise, and neither is a fall or a burst",
    [FastCheck.nat(1000), FastCheck.integer({ min: 1, max: 1000 }), FastCheck.integer({ min: 1, max: 19 })],
    ([low, height, at]) => {
      const level = (count: number, value: number) => Array.from({ length: count }, () => value)
      const step = [...level(at, low), ...level(20 - at, low + height)]
      assert.strictEqual(Forecast.trend(after(step)), 0)
      assert.strictEqual(Forecast.trend(after(step.toReversed())), 0)
      assert.strictEqual(Forecast.trend(after([...level(at, low), low + height, ...level(19 - at, low)])), 0)
    }
  )

  it.prop(
    "demand is in the interval in which it was told, however long the steps are, and old demand is forgotten",
    [FastCheck.array(FastCheck.record({ elapsed: FastCheck.nat(50_000), taken: FastCheck.nat(50) }))],
    ([steps]) => {
      const state = steps.reduce((past, step) => Forecast.record(past, step, 1000), Forecast.initial)
      const total = steps.reduce((sum, { taken }) => sum + taken, 0)
      assert.isAtMost(state.demand.reduce((sum, count) => sum + count, 0) + state.open, total)
      assert.isAtMost(state.demand.length, Forecast.maxIntervals)
      assert.isBelow(state.elapsed, 1000)
      assert.isTrue(Number.isFinite(Forecast.burst(state)) && Number.isFinite(Forecast.trend(state)))
      // Without demand nothing is kept.
      const later = Forecast.record(state, { elapsed: 1000 * (Forecast.maxIntervals + 1), taken: 0 }, 1000)
      assert.deepStrictEqual(later.demand, [])
    }
  )
})
