/**
 * Everything that can be said about the code without running it.
 */
import { build } from "./build.js"
import { install } from "./install.js"
import { capture, isMain, run, tool } from "./tool.js"

/** The checks by name, as what Node runs. */
const all = {
  types: () => [tool("typescript", "tsc"), "-p", "."],
  page: () => [tool("typescript", "tsc"), "-p", "src/page"],
  effect: () => [tool("@effect/tsgo"), "diagnostics", "--project", "tsconfig.json", "--strict"],
  lint: () => [tool("oxlint"), "--type-aware", "--report-unused-disable-directives-severity=error"],
  format: () => [tool("oxfmt"), "--check"],
  unused: () => [tool("knip"), "--no-progress"]
}

/** Runs every check, two at a time, printing a line for each as it ends; answers with how many passed and failed. */
export const check = async () => {
  const waiting = Object.entries(all)
  const count = { passed: 0, failed: 0 }
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [name, args] = next
      const result = await one(name, args)
      if (result !== "skipped") count[result]++
    }
  }
  await Promise.all([worker(), worker()])
  return count
}

/**
 * @param {string} name
 * @param {() => ReadonlyArray<string>} args
 * @returns {Promise<"passed" | "failed" | "skipped">}
 */
const one = async (name, args) => {
  if (name === "effect" && !(await hasEffectDiagnostics())) {
    console.log(`--  ${name} (not run: @effect/tsgo has no program for ${process.platform} ${process.arch})`)
    return "skipped"
  }
  const start = performance.now()
  const { ok, output } = await capture(args())
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  console.log(ok ? `ok  ${name} (${seconds} s)` : `FAILED  ${name} (${seconds} s)\n${output.trimEnd()}`)
  return ok ? "passed" : "failed"
}

const hasEffectDiagnostics = async () => (await capture([tool("@effect/tsgo"), "get-exe-path"])).ok

if (isMain(import.meta.url))
  await run(async () => {
    install()
    await build()
    const { failed } = await check()
    if (failed > 0) process.exitCode = 1
  })
