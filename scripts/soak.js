/**
 * `npm run soak`: a real tunnel and thousands of visitors, while relay threads are killed, or while memory is measured.
 */
import { build } from "./build.js"
import { install } from "./install.js"
import { run, runSource } from "./tool.js"

await run(async () => {
  install()
  await build()
  return runSource("test/soak.ts")
})
