import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Liveness from "../../src/signal/Liveness.js"

const interval = 5000
/** A peer that answered with these gaps, in report intervals, and then became silent. */
const after = (gaps: ReadonlyArray<number>) => {
  let now = 0
  const liveness = Liveness.make({ interval, now })
  for (const gap of gaps) liveness.pong((now += gap * interval))
  return { liveness, state: (intervals: number) => liveness.state(now + intervals * interval), now }
}
const gaps = FastCheck.array(FastCheck.double({ min: 0, max: 2.4, noNaN: true }), { maxLength: 60 })

describe("Liveness", () => {
  it.prop("suspects no peer early, and gives up a silent one within three report intervals", [gaps], ([gaps]) => {
    const { state } = after(gaps)
    assert.deepStrictEqual([state(1.2), state(2.6)], ["alive", "lost"])
  })

  it.prop("never judges a longer silence as better", [gaps], ([gaps]) => {
    const { liveness, now } = after(gaps)
    const worse = { alive: 0, suspect: 1, lost: 2 }
    const states = Array.from({ length: 40 }, (_, n) => worse[liveness.state(now + (n * interval) / 10)])
    assert.deepStrictEqual(
      states,
      states.toSorted((left, right) => left - right)
    )
  })

  it("waits longer for a peer that answers irregularly than for a regular one", () => {
    const regular = after(Array.from({ length: 50 }, () => 1))
    const erratic = after(Array.from({ length: 50 }, (_, n) => (n % 2 === 0 ? 0.4 : 1.6)))
    assert.deepStrictEqual([regular.state(1.8), erratic.state(1.8)], ["lost", "alive"])
  })

  it("counts any signal as a sign of life, and does not count time in which this process was stopped", () => {
    const { liveness, now } = after([1, 1, 1])
    liveness.received(now + 10_000)
    assert.strictEqual(liveness.state(now + 12_000), "alive")
    liveness.excuse(60_000)
    assert.strictEqual(liveness.state(now + 72_000), "alive")
    assert.strictEqual(liveness.state(now + 90_000), "lost")
  })
})
