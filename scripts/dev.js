/**
 * `npm run dev`: runs the unit and simulated tests that a change of a file affects, as often as one changes.
 */
import { install } from "./install.js"
import { inTerminal, run, tool } from "./tool.js"

await run(async () => {
  install()
  process.exitCode = await inTerminal([tool("vitest"), "watch", "--project=simulated", ...process.argv.slice(2)])
})
