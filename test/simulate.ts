/**
 * Whole tunnels in simulated worlds: `npm run simulate -- --seeds N --seed S`.
 *
 * `--log` prints what the tunnels log; a world that breaks a law always does.
 */
import * as FastCheck from "effect/FastCheck"
import { parseArgs } from "node:util"
import * as TunnelWorld from "./simulation/worlds/TunnelWorld.js"

const { values } = parseArgs({
  options: { seeds: { type: "string" }, seed: { type: "string" }, log: { type: "boolean" } }
})
const first = Number(values.seed ?? 1)
const count = Number(values.seeds ?? 1000)
if (!Number.isSafeInteger(first) || !Number.isSafeInteger(count) || count < 1) {
  console.error("simulate: expected --seeds <a whole number above 0> and --seed <a whole number>")
  process.exit(2)
}

let violations = 0
const total = { served: 0, refused: 0 }
for (let seed = first; seed < first + count; seed++) {
  for (const scenario of FastCheck.sample(TunnelWorld.scenario, { seed, numRuns: 1 })) {
    const { broken, log, refused, served } = TunnelWorld.run(scenario)
    total.served += served
    total.refused += refused
    violations += broken.length
    if (values.log === true || broken.length > 0) for (const line of log) console.log(line)
    if (broken.length > 0) console.log(FastCheck.stringify(scenario))
    for (const law of broken) console.log(`seed ${seed}: ${law}`)
  }
}
console.log(`${total.served} visitors served, ${total.refused} refused`)
console.log(`${count} worlds, ${violations} violations`)
process.exitCode = violations === 0 ? 0 : 1
