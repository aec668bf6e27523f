import { describe } from "@effect/vitest"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import { large, moving, scenario, small } from "./streams/Scenario.js"
import { World } from "./streams/World.js"

describe("Streams", () => {
  it.drawn(
    "bytes arrive whole, in order, once, whatever befalls the carriers, and nothing is left",
    scenario(small),
    runs(2000, 200_000),
    (drawn) => void new World(drawn).run()
  )

  it.drawn(
    "the same for streams that are moved to a connection of their own, at any byte",
    scenario(moving),
    runs(400, 40_000),
    (drawn) => void new World(drawn).run()
  )

  it.drawn(
    "the same for streams of some MB, which fill windows and what carriers keep",
    scenario(large),
    runs(80, 10_000),
    (drawn) => void new World(drawn).run()
  )
})
