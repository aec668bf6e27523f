/**
 * The figures of this process that `ProcessMetrics` publishes.
 */
import * as Effect from "effect/Effect"
import process from "node:process"
import * as ProcessMetrics from "../../core/ProcessMetrics.js"

export const read: Effect.Effect<ProcessMetrics.Process> = Effect.sync(() => ({
  uptime: process.uptime(),
  memory: process.memoryUsage.rss()
}))

export const publish = (version: string): Effect.Effect<void> =>
  Effect.flatMap(read, (figures) => ProcessMetrics.publish(version, figures))
