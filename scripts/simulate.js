/**
 * `npm run simulate`: worlds with seeds, as many as asked for.
 */
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(() => {
  install()
  return runSource("test/simulate.ts")
})
