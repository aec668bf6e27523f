import * as Effect from "effect/Effect"
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as SimNetwork from "../src/testing/SimNetwork.js"
import * as Simulation from "../src/testing/Simulation.js"
import { suite, type World } from "./Transport.compliance.js"

/** Runs it in worlds of ten seeds, on one host. */
const run: World["run"] = (program) =>
  Effect.sync(() => {
    for (let seed = 0; seed < 10; seed++) {
      const network = SimNetwork.make({ segment: 20 + seed * 300, window: 8 + seed })
      const { exit, leftover } = Simulation.run(program.pipe(Effect.scoped, Effect.provide(network.host("here"))), {
        seed,
        turn: seed < 5 ? 50 : 2048
      })
      if (Exit.isFailure(exit)) assert.fail(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
      assert.deepStrictEqual([network.open(), leftover], [0, 0], `seed ${seed}`)
    }
  })

suite("SimNetwork", { run, flood: { chunks: 200, bytes: 500, limit: 17 * 2720 } })
