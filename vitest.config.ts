import { randomInt } from "node:crypto"
import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"
import { timeLimitMillis } from "./test/Runs.js"

const cores = availableParallelism()

export default defineConfig({
  test: {
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
