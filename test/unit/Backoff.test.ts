import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Schedule from "effect/Schedule"
import * as Backoff from "../../src/core/Backoff.js"
import * as Simulation from "../../src/testing/Simulation.js"

const longest = Duration.seconds(3)

/** The waits, in milliseconds, after attempts that ended so. */
const waits = (ended: ReadonlyArray<Backoff.Ended>, seed: number): ReadonlyArray<number> => {
  const program = Effect.gen(function* () {
    const driver = yield* Schedule.driver(Backoff.schedule(longest))
    return yield* Effect.forEach(ended, (each) =>
      Effect.map(Effect.timed(driver.next(each)), ([took]) => Duration.toMillis(took))
    )
  })
  return Exit.getOrElse(Simulation.run(program, { seed }).exit, (cause) => assert.fail(String(cause)))
}
const failed = { healthy: false, worked: false, refused: false }

describe("Backoff", () => {
  it.prop(
    "doubles from 100 ms up to the longest, each wait between its half and its whole",
    [FastCheck.integer()],
    ([seed]) => {
      waits(
        Array.from({ length: 12 }, () => failed),
        seed
      ).forEach((wait, n) => {
        const whole = Math.min(100 * 2 ** n, 3000)
        assert.isTrue(wait >= whole / 2 - 1 && wait <= whole, `${wait} of ${whole}`)
      })
    }
  )

  it.prop(
    "tries at once after a healthy while, and starts anew",
    [FastCheck.integer(), FastCheck.nat(9)],
    ([seed, before]) => {
      const ended = [
        ...Array.from({ length: before }, () => failed),
        { healthy: true, worked: true, refused: false },
        failed
      ]
      const [healthy, next] = waits(ended, seed).slice(-2)
      assert.strictEqual(healthy, 0)
      assert.isAtMost(next ?? Infinity, 100)
    }
  )

  it.prop(
    "starts anew after what worked for a moment, and does not try at once",
    [FastCheck.integer(), FastCheck.nat(9)],
    ([seed, before]) => {
      const brief = { ...failed, worked: true }
      const ended = [...Array.from({ length: before }, () => failed), brief, brief]
      for (const wait of waits(ended, seed).slice(-2)) assert.isTrue(wait >= 49 && wait <= 100, `${wait}`)
    }
  )

  it.prop("waits no longer than a third for a machine that refuses", [FastCheck.integer()], ([seed]) => {
    const ended = Array.from({ length: 12 }, () => ({ healthy: false, worked: false, refused: true }))
    for (const wait of waits(ended, seed)) assert.isAtMost(wait, 1000)
  })
})
