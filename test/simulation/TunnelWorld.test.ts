import { assert, describe } from "@effect/vitest"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import * as TunnelWorld from "./worlds/TunnelWorld.js"

describe("a tunnel in a simulated world", () => {
  it.drawn("keeps every law whatever happens to it", TunnelWorld.scenario, runs(14, 600), (scenario) => {
    const { broken, log } = TunnelWorld.run(scenario)
    assert.deepStrictEqual(broken, [], log.join("\n"))
  })

  it.drawn("has one history for one scenario", TunnelWorld.scenario, runs(2, 10), (scenario) => {
    assert.deepStrictEqual(TunnelWorld.run(scenario), TunnelWorld.run(scenario))
  })
})
