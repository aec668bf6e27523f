/**
 * `npm run soak`: a real tunnel and visitors by the thousand, while relay threads die.
 */
import { build } from "./build.js"
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(async () => {
  install()
  await build()
  return runSource("test/soak.ts")
})
