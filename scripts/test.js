/**
 * `npm test`: the checks, then the tests; the last line has how many passed and failed.
 *
 * `--long` draws as many random inputs as `test/Runs.ts` has for a long run, and `--no-checks` leaves the checks out. All
 * other arguments go to vitest.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { build } from "./build.js"
import { check } from "./check.js"
import { install } from "./install.js"
import { Failure, inTerminal, run, tool } from "./tool.js"

/** Brings `dist/` up to date, as one more check: after a failed build the tests still run. */
const checkBuild = async () => {
  try {
    await build()
    return { passed: 1, failed: 0 }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    console.log(`FAILED  build\n${error.message}`)
    return { passed: 0, failed: 1 }
  }
}

/**
 * Runs vitest; a file that does not load, or an error outside any test, counts as one failure.
 *
 * @param {ReadonlyArray<string>} args
 */
const test = async (args) => {
  const folder = mkdtempSync(join(tmpdir(), "nodepass-test-"))
  const report = join(folder, "report.json")
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`]
  try {
    const code = await inTerminal([tool("vitest"), "run", ...reporters, ...args])
    const count = counted(report)
    if (count.passed === 0) console.error(`vitest ended without a report of passed tests: exit code ${code}`)
    return code !== 0 && count.failed === 0 ? { ...count, failed: 1 } : count
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** @param {string} report */
const counted = (report) => {
  try {
    const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"))
    const broken = testResults.filter(
      (/** @type {{ status: string, assertionResults: Array<unknown> }} */ file) =>
        file.status === "failed" && file.assertionResults.length === 0
    )
    return { passed: numPassedTests, failed: numFailedTests + broken.length }
  } catch {
    return { passed: 0, failed: 1 }
  }
}

await run(async () => {
  install()
  const own = new Set(process.argv.slice(2).filter((arg) => ["--long", "--no-checks"].includes(arg)))
  const rest = process.argv.slice(2).filter((arg) => !own.has(arg))
  if (own.has("--long")) process.env["NODEPASS_TEST"] = "long"
  // The build comes first: the examples are checked against what it makes.
  const built = await checkBuild()
  const checks = own.has("--no-checks") ? [] : [await check()]
  const counts = [built, ...checks, await test(rest)]
  const passed = counts.reduce((sum, count) => sum + count.passed, 0)
  const failed = counts.reduce((sum, count) => sum + count.failed, 0)
  if (failed > 0) process.exitCode = 1
  console.log(`\nTests: ${passed} passed, ${failed} failed`)
})
