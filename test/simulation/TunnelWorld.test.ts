import { assert, describe, it } from "@effect/vitest"
import * as TunnelWorld from "./worlds/TunnelWorld.js"

const seeds = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index)

describe("a tunnel in simulated worlds", () => {
  it.each(Array.from({ length: 26 }, (_, index) => 20 * index))(
    "20 worlds from seed %i keep every law",
    (first) => {
      const broken = seeds(first, 20).flatMap((seed) =>
        TunnelWorld.run(seed).broken.map((law) => `seed ${seed}: ${law}`)
      )
      assert.deepStrictEqual(broken, [])
    },
    120_000
  )

  it.each(seeds(1000, 8))(
    "seed %i is one history",
    (seed) => {
      assert.deepStrictEqual(TunnelWorld.run(seed), TunnelWorld.run(seed))
    },
    60_000
  )
})
