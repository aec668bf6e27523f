import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Schedule from "effect/Schedule"
import * as Backoff from "../../src/core/Backoff.js"
import * as Simulated from "../Simulated.js"

const maxDelay = Duration.seconds(3)

/** The delays in milliseconds after attempts that ended like these. */
const delays = (ended: ReadonlyArray<Backoff.Ended>, seed: number): ReadonlyArray<number> => {
  const program = Effect.gen(function* () {
    const driver = yield* Schedule.driver(Backoff.schedule(maxDelay))
    return yield* Effect.forEach(ended, (each) =>
      Effect.map(Effect.timed(driver.next(each)), ([took]) => Duration.toMillis(took))
    )
  })
  return Simulated.run({ seed }, () => program)
}
const failed = { healthy: false, worked: false, refused: false }

describe("Backoff", () => {
  it.prop(
    "doubles from 100 ms up to the limit, each delay between half and all of that",
    [FastCheck.integer()],
    ([seed]) => {
      delays(
        Array.from({ length: 12 }, () => failed),
        seed
      ).forEach((wait, n) => {
        const whole = Math.min(100 * 2 ** n, 3000)
        assert.isTrue(wait >= whole / 2 - 1 && wait <= whole, `${wait} of ${whole}`)
      })
    }
  )

  it.prop(
    "does not delay after a healthy attempt, and starts at 100 ms again",
    [FastCheck.integer(), FastCheck.nat(9)],
    ([seed, before]) => {
      const ended = [
        ...Array.from({ length: before }, () => failed),
        { healthy: true, worked: true, refused: false },
        failed
      ]
      const [healthy, next] = delays(ended, seed).slice(-2)
      assert.strictEqual(healthy, 0)
      assert.isAtMost(next ?? Infinity, 100)
    }
  )

  it.prop(
    "starts at 100 ms again after an attempt that worked for a moment",
    [FastCheck.integer(), FastCheck.nat(9)],
    ([seed, before]) => {
      const brief = { ...failed, worked: true }
      const ended = [...Array.from({ length: before }, () => failed), brief, brief]
      for (const wait of delays(ended, seed).slice(-2)) assert.isTrue(wait >= 49 && wait <= 100, `${wait}`)
    }
  )

  it.prop("delays no longer than a third of the limit after a refusal", [FastCheck.integer()], ([seed]) => {
    const ended = Array.from({ length: 12 }, () => ({ healthy: false, worked: false, refused: true }))
    for (const wait of delays(ended, seed)) assert.isAtMost(wait, 1000)
  })
})
