import { describe } from "@effect/vitest"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import { scenario } from "./streams/Scenario.js"
import { World } from "./streams/World.js"

describe("Streams", () => {
  it.drawn(
    "bytes arrive whole, in order, once, whatever befalls the carriers, and nothing is left",
    scenario({ streams: 6, faults: 6, bytes: 60_000 }),
    runs(2000, 200_000),
    (drawn) => void new World(drawn).run()
  )
})
