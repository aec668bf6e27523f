import { randomInt } from "node:crypto"
import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"
import { timeLimitMillis } from "./test/Runs.js"

const cores = availableParallelism()

/** The files that take longest, so that no core is without work at the end. Others follow by size, as by default. */
const longest = ["Page", "MasterServer", "Faults", "MasterCrowd", "Limits", "Memory", "TunnelPort", "Failover"]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>) {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`))
      return at === -1 ? longest.length : at
    }
    // oxlint-disable-next-line unicorn/no-array-sort -- not the method of an array
    const sorted = await super.sort(files)
    return sorted.toSorted((one, other) => rank(one) - rank(other))
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    setupFiles: ["test/setup.ts"],
    env: { NODEPASS_SEED: process.env["NODEPASS_SEED"] ?? String(randomInt(2 ** 31)) },
    // Only a hang takes so long.
    testTimeout: timeLimitMillis,
    hookTimeout: timeLimitMillis,
    watch: false,
    dangerouslyIgnoreUnhandledErrors: false,
    poolOptions: {
      threads: { isolate: false, minThreads: 1, maxThreads: cores },
      forks: { isolate: false, minForks: cores + 1, maxForks: cores + 1 }
    },
    projects: [
      // Virtual time and pure functions: each thread loads the modules once for all its files.
      { extends: true, test: { name: "simulated", include: ["test/{unit,simulation}/**/*.test.ts"], pool: "threads" } },
      // Real sockets and processes: they wait more than they compute, so they share the cores with the threads.
      { extends: true, test: { name: "live", include: ["test/live/**/*.test.ts"], pool: "forks" } }
    ]
  }
})
