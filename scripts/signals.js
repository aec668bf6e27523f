/**
 * `npm run signals`: what launches cost on the control connection: one in each write, in batches, and deflated.
 */
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(() => {
  install()
  return runSource("bench/signals.ts")
})
