import { assert, describe, it } from "@effect/vitest"
import * as ControlWorld from "./worlds/ControlWorld.js"

const seeds = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index)

describe("signals in simulated worlds", () => {
  it.each(seeds(0, 15).map((index) => 100 * index))(
    "100 worlds from seed %i keep every law",
    (first) => {
      const broken = seeds(first, 100).flatMap((seed) =>
        ControlWorld.run(seed).broken.map((law) => `seed ${seed}: ${law}`)
      )
      assert.deepStrictEqual(broken, [])
    },
    120_000
  )

  it("sessions are gone on with in many of them, and launches refused in some", () => {
    const worlds = seeds(0, 120).map(ControlWorld.run)
    assert.isAbove(worlds.filter(({ resumed }) => resumed > 0).length, 30)
    assert.isAbove(worlds.filter(({ refused }) => refused > 0).length, 3)
  })

  it.each(seeds(2000, 4))("seed %i is one history", (seed) => {
    assert.deepStrictEqual(ControlWorld.run(seed), ControlWorld.run(seed))
  })
})
