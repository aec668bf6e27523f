import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/turn.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    watch: false,
    dangerouslyIgnoreUnhandledErrors: false,
    pool: "forks",
    poolOptions: { forks: { maxForks: 2, minForks: 1 } }
  }
})
