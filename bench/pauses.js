/**
 * Loaded into hops by `NODE_OPTIONS`: SIGUSR2 writes how long each pause of the garbage collector took since the last signal.
 */
import { PerformanceObserver } from "node:perf_hooks"
import { isMainThread } from "node:worker_threads"

if (isMainThread) {
  /** @type {Array<number>} */
  let pauses = []
  const observer = new PerformanceObserver((list) => pauses.push(...list.getEntries().map(({ duration }) => duration)))
  observer.observe({ entryTypes: ["gc"] })
  process.on("SIGUSR2", () => {
    console.error(`pauses: ${JSON.stringify(pauses)}`)
    pauses = []
  })
}
