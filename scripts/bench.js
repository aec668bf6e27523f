/**
 * `npm run bench`: the measurements.
 */
import { build } from "./build.js"
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(async () => {
  install()
  await build()
  return runSource("bench/bench.ts")
})
