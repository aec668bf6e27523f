/**
 * `npm run signals`: what launches cost on the control connection, said each by itself, together, and deflated.
 */
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(() => {
  install()
  return runSource("bench/signals.ts")
})
