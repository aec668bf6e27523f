import { assert, describe } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import * as ControlWorld from "./worlds/ControlWorld.js"

describe("signals in a simulated world", () => {
  it.drawn("keep every law whatever happens to their connection", ControlWorld.scenario, runs(40, 1600), (scenario) => {
    const { broken, log } = ControlWorld.run(scenario)
    assert.deepStrictEqual(broken, [], log.join("\n"))
  })

  it("belong to a session that is resumed in many worlds, and some launches are refused", () => {
    const worlds = FastCheck.sample(ControlWorld.scenario, { seed: 1, numRuns: 20 }).map(ControlWorld.run)
    assert.isAbove(worlds.filter(({ resumed }) => resumed > 0).length, 2)
    assert.isAbove(worlds.filter(({ refused }) => refused > 0).length, 0)
  })

  it.drawn("have one history for one scenario", ControlWorld.scenario, runs(2, 8), (scenario) => {
    assert.deepStrictEqual(ControlWorld.run(scenario), ControlWorld.run(scenario))
  })
})
