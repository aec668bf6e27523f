import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Slots from "../../src/relay/Slots.js"
import * as Simulated from "../Simulated.js"

const visit = FastCheck.record({ arrives: FastCheck.nat(50), stays: FastCheck.nat(50) })

describe("Slots", () => {
  it.prop(
    "holds at most `limit`, and none once every visit has ended",
    { seed: FastCheck.integer(), limit: FastCheck.integer({ min: 1, max: 5 }), visits: FastCheck.array(visit) },
    ({ limit, seed, visits }) => {
      let held = 0
      let peak = 0
      const program = Effect.gen(function* () {
        const slots = yield* Slots.Slots
        const stay = ({ arrives, stays }: (typeof visits)[number]) =>
          Effect.gen(function* () {
            yield* Effect.sleep(arrives)
            yield* slots.acquire
            peak = Math.max(peak, ++held)
            yield* Effect.addFinalizer(() => Effect.sync(() => held--))
            yield* Effect.sleep(stays)
          }).pipe(
            Effect.scoped,
            Effect.catchTag("SlotsFull", () => Effect.void)
          )
        yield* Effect.forEach(visits, stay, { concurrency: "unbounded" })
        // All are free again: exactly `limit` can be held.
        yield* Effect.scoped(Effect.replicateEffect(slots.acquire, limit))
        return yield* Effect.flip(Effect.scoped(Effect.replicateEffect(slots.acquire, limit + 1)))
      })
      const error = Simulated.run({ seed, layers: Slots.layer({ limit }) }, () => program)
      assert.deepStrictEqual(error, new Slots.SlotsFull({ limit }))
      assert.isAtMost(peak, limit)
    }
  )
})
