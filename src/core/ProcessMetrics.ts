/**
 * What this process is: its version, age and memory as metrics, of a master and of a tunnel by itself alike.
 */
import * as Metric from "effect/Metric"
import * as Effect from "effect/Effect"

export interface Process {
  readonly version: string
  readonly uptimeSeconds: number
  /** Resident memory. */
  readonly memoryBytes: number
}

export const publish = ({ memoryBytes, uptimeSeconds, version }: Process): Effect.Effect<void> =>
  Effect.all(
    [
      Metric.set(Metric.tagged(info, "version", version), 1),
      Metric.set(uptime, uptimeSeconds),
      Metric.set(memory, memoryBytes)
    ],
    { discard: true }
  )

// internal

const info = Metric.gauge("nodepass_info", { description: "The version, as a label; always 1." })
const uptime = Metric.gauge("nodepass_uptime_seconds", { description: "Seconds since the start." })
const memory = Metric.gauge("nodepass_memory_bytes", { description: "Resident memory of the process." })
