/**
 * More worlds than the tests run: `npm run simulate -- --seeds N --seed S`.
 */
import { parseArgs } from "node:util"
import { run } from "./simulation/worlds/TunnelWorld.js"

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
  const world = run(seed)
  total.served += world.served
  total.refused += world.refused
  if (values.log === true) for (const line of world.log) console.log(line)
  for (const broken of world.broken) {
    violations++
    console.log(`seed ${seed}: ${broken}`)
  }
}
console.log(`${total.served} visitors served, ${total.refused} refused`)
console.log(`${count} worlds, ${violations} violations`)
process.exitCode = violations === 0 ? 0 : 1
