/**
 * Runs before each test file: seeds the properties, and keeps vitest's worker responsive.
 */
import * as FastCheck from "effect/FastCheck"
import { afterEach, beforeEach } from "vitest"
import { runs, seed, timeLimitMillis } from "./Runs.js"

/** One turn of the event loop. Without it a file of simulations answers the runner so late that it counts as dead. */
const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

FastCheck.configureGlobal({ seed, numRuns: runs(25, 100), interruptAfterTimeLimit: timeLimitMillis / 2 })

beforeEach(({ onTestFailed }) => {
  onTestFailed(() => console.error(`NODEPASS_SEED=${seed} draws the same random inputs again`))
})
afterEach(turn)
