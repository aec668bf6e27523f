import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Liveness from "../../src/signal/Liveness.js"

const interval = 5000
/** A peer that answered so, each gap in report intervals, and then fell silent. */
const after = (gaps: ReadonlyArray<number>) => {
  let now = 0
  const liveness = Liveness.make({ interval, now })
  for (const gap of gaps) liveness.pong((now += gap * interval))
  return { liveness, state: (intervals: number) => liveness.state(now + intervals * interval), now }
}
const gaps = FastCheck.array(FastCheck.double({ min: 0, max: 2.4, noNaN: true }), { maxLength: 60 })

describe("Liveness", () => {
  it.prop(
    "nobody is suspected early, and whoever is silent is lost within three report intervals",
    [gaps],
    ([gaps]) => {
      const { state } = after(gaps)
      assert.deepStrictEqual([state(1.2), state(2.6)], ["alive", "lost"])
    }
  )

  it.prop("silence is worse the longer it is", [gaps], ([gaps]) => {
    const { liveness, now } = after(gaps)
    const worse = { alive: 0, suspect: 1, lost: 2 }
    const states = Array.from({ length: 40 }, (_, n) => worse[liveness.state(now + (n * interval) / 10)])
    assert.deepStrictEqual(
      states,
      states.toSorted((left, right) => left - right)
    )
  })

  it("is patient with a peer that answers now early and now late, and not with one like a clock", () => {
    const regular = after(Array.from({ length: 50 }, () => 1))
    const erratic = after(Array.from({ length: 50 }, (_, n) => (n % 2 === 0 ? 0.4 : 1.6)))
    assert.deepStrictEqual([regular.state(1.8), erratic.state(1.8)], ["lost", "alive"])
  })

  it("any word is a sign of life, and time in which this process stood still is nobody's silence", () => {
    const { liveness, now } = after([1, 1, 1])
    liveness.received(now + 10_000)
    assert.strictEqual(liveness.state(now + 12_000), "alive")
    liveness.excuse(60_000)
    assert.strictEqual(liveness.state(now + 72_000), "alive")
    assert.strictEqual(liveness.state(now + 90_000), "lost")
  })
})
