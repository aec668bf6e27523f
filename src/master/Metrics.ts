/**
 * The metrics of the master itself. Its instances publish their own: see `TunnelMetrics`.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as ProcessMetrics from "../core/ProcessMetrics.js"
import * as Prometheus from "../core/Prometheus.js"
import { Settings } from "../transport/Settings.js"
import { HostFigures } from "./HostFigures.js"
import { Master } from "./Master.js"

export class Metrics extends Context.Tag("nodepass/Metrics")<
  Metrics,
  {
    /** Every metric of the process, as they are now, as text for Prometheus. */
    readonly text: Effect.Effect<string>
    /** Counts a request that was answered. */
    readonly answered: (method: string, status: number) => void
    /** Counts subscribers of events: one more, or one less. */
    readonly subscribed: (change: 1 | -1) => void
  }
>() {}

export interface Options {
  readonly version: string
}

/** Updates the gauges each report interval, for exporters that send what they find, and whenever `text` is read. */
export const layer = ({ version }: Options): Layer.Layer<Metrics, never, HostFigures | Master | Settings> =>
  Layer.scoped(
    Metrics,
    Effect.gen(function* () {
      const master = yield* Master
      const host = yield* HostFigures
      const { reportInterval } = yield* Settings
      const update = Effect.gen(function* () {
        yield* ProcessMetrics.publish(version, yield* host.process)
        // Each instance publishes its own metrics when it is read.
        const list = yield* master.list
        for (const status of ["running", "stopped", "error"] as const) {
          const count = list.filter((instance) => instance.status === status).length
          yield* Metric.set(Metric.tagged(instances, "status", status), count)
        }
      })
      yield* Effect.forkScoped(Effect.repeat(update, Schedule.spaced(reportInterval)))
      return Metrics.of({
        text: Effect.zipRight(update, Prometheus.snapshot),
        answered: (method, status) =>
          requests
            .pipe(
              Metric.tagged("method", methods.has(method) ? method : "other"),
              Metric.tagged("status", String(status))
            )
            .unsafeUpdate(1, []),
        subscribed: (change) => subscribers.unsafeModify(change, [])
      })
    })
  )

// internal

const methods = new Set(["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "HEAD"])

const instances = Metric.gauge("nodepass_instances", { description: "Instances by status." })
const subscribers = Metric.gauge("nodepass_event_subscribers", { description: "Streams of events open now." })
const requests = Metric.counter("nodepass_http_requests_total", {
  description: "Requests answered.",
  incremental: true
})
