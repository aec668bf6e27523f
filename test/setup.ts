/**
 * Runs before each test file: seeds the properties, and keeps vitest's worker responsive.
 */
import * as FastCheck from "effect/FastCheck"
import { afterEach, beforeEach } from "vitest"
import { runs, seed, timeLimitMillis } from "./Runs.js"

/** One turn of the event loop. Without it the worker of a simulation answers vitest too late, and vitest reports a timeout. */
const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

FastCheck.configureGlobal({ seed, numRuns: runs(15, 100), interruptAfterTimeLimit: timeLimitMillis / 2 })

beforeEach(({ onTestFailed }) => {
  onTestFailed(() => console.error(`NODEPASS_SEED=${seed} draws the same random inputs again`))
})
afterEach(turn)
