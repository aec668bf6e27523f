/**
 * Loaded into the command by `NODE_OPTIONS`: SIGUSR2 collects all garbage, and then writes the bytes that are still in use.
 */
import { isMainThread } from "node:worker_threads"

if (isMainThread) {
  process.on("SIGUSR2", () => {
    globalThis.gc?.()
    // What finalizers let go is garbage in the next turn.
    setImmediate(() => {
      globalThis.gc?.()
      const { external, heapUsed } = process.memoryUsage()
      console.error(`bytes in use: ${heapUsed + external}`)
    })
  })
}
