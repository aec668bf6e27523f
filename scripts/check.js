/**
 * Everything that can be said about the code without running it.
 */
import { build } from "./build.js"
import { install } from "./install.js"
import { capture, isMain, run, tool } from "./tool.js"

/**
 * @typedef {{ readonly ok: boolean, readonly output: string }} Result
 */

/**
 * The checks by name, those that take longest first. `types` has the diagnostics of Effect too.
 *
 * @type {Record<string, () => Promise<Result>>}
 */
const all = {
  types: () => checkTypes(),
  lint: () => capture([tool("oxlint"), "--type-aware", "--report-unused-disable-directives-severity=error"]),
  unused: () => capture([tool("knip"), "--no-progress"]),
  page: () => capture([tool("typescript", "tsc"), "-p", "src/page"]),
  format: () => capture([tool("oxfmt"), "--check"])
}

/** Runs the compiler of @effect/tsgo, whose warnings fail the check. Machines without a binary of it use TypeScript's compiler. */
const checkTypes = async () => {
  const compiler = await capture([tool("@effect/tsgo"), "get-exe-path"])
  if (compiler.ok) {
    const { ok, output } = await capture(["-p", ".", "--checkers", "1"], compiler.output.trim())
    return { ok: ok && !output.includes("warning TS"), output }
  }
  console.log(`--  types (without Effect's: @effect/tsgo has no program for ${process.platform} ${process.arch})`)
  return capture([tool("typescript", "tsc"), "-p", "."])
}

/** Runs every check, two at a time, and prints a line for each when it ends. Returns how many passed and failed. */
export const check = async () => {
  const waiting = Object.entries(all)
  const count = { passed: 0, failed: 0 }
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [name, result] = next
      const start = performance.now()
      const { ok, output } = await result()
      const seconds = ((performance.now() - start) / 1000).toFixed(1)
      console.log(ok ? `ok  ${name} (${seconds} s)` : `FAILED  ${name} (${seconds} s)\n${output.trimEnd()}`)
      count[ok ? "passed" : "failed"]++
    }
  }
  await Promise.all([worker(), worker()])
  return count
}

if (isMain(import.meta.url))
  await run(async () => {
    install()
    await build()
    const { failed } = await check()
    if (failed > 0) process.exitCode = 1
  })
