/**
 * The version, uptime and memory of this process as metrics: the same for a master and for a tunnel by itself.
 */
import * as Metric from "effect/Metric"
import * as Effect from "effect/Effect"

export interface Process {
  /** Seconds since the start of the process. */
  readonly uptime: number
  /** Resident memory, in bytes. */
  readonly memory: number
}

export const publish = (version: string, figures: Process): Effect.Effect<void> =>
  Effect.all(
    [
      Metric.set(Metric.tagged(info, "version", version), 1),
      Metric.set(uptime, figures.uptime),
      Metric.set(memory, figures.memory)
    ],
    { discard: true }
  )

// internal

const info = Metric.gauge("nodepass_info", { description: "The version, as a label; always 1." })
const uptime = Metric.gauge("nodepass_uptime_seconds", { description: "Seconds since the start of the process." })
const memory = Metric.gauge("nodepass_memory_bytes", { description: "Resident memory of the process." })
