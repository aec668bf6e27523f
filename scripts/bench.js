/**
 * `npm run bench`: the measurements.
 */
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(() => {
  install()
  return runSource("bench/bench.ts")
})
