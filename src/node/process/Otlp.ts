/**
 * The metrics for OpenTelemetry, as OTLP over HTTP in JSON, when the standard `OTEL_*` variables ask for it.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import process from "node:process"
import { HostFigures } from "../../master/HostFigures.js"
import { type Family, Metrics } from "../../master/Metrics.js"

export interface Options {
  readonly version: string
}

/** Sends the metrics each export interval; nothing where no endpoint is set. A collector that is away is one line. */
export const layer = ({ version }: Options): Layer.Layer<never, never, HostFigures | Metrics> =>
  Layer.scopedDiscard(
    Effect.gen(function* () {
      const target = endpoint(process.env)
      if (target === undefined) return
      const metrics = yield* Metrics
      const { name } = yield* HostFigures
      const start = yield* Clock.currentTimeMillis
      const resource = { ...resourceOf(process.env, version), "host.name": name }
      let away = false
      const send = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const body = JSON.stringify(message(yield* metrics.families, resource, start, now))
        yield* Effect.tryPromise({
          try: async (signal) => {
            const headers = { "content-type": "application/json", ...headersOf(process.env) }
            const answer = await fetch(target, { method: "POST", headers, body, signal })
            await answer.arrayBuffer()
            if (!answer.ok) throw new Error(`it answers ${answer.status}`)
          },
          catch: (cause) => (cause instanceof Error ? cause.message : String(cause))
        }).pipe(Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => "it does not answer" }))
        away = false
      }).pipe(
        Effect.catchAll((reason) => {
          if (away) return Effect.void
          away = true
          return Effect.annotateLogs(Effect.logWarning(`the collector of metrics is away: ${reason}`), { url: target })
        })
      )
      yield* Effect.forkScoped(Effect.repeat(send, Schedule.spaced(interval(process.env))))
    })
  )

type Variables = Readonly<Record<string, string | undefined>>

/** Where metrics go, if anywhere. */
export const endpoint = (env: Variables): string | undefined => {
  if (env["OTEL_SDK_DISABLED"] === "true" || env["OTEL_METRICS_EXPORTER"] === "none") return undefined
  const all = env["OTEL_EXPORTER_OTLP_ENDPOINT"]
  return env["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] || (all ? `${all.replace(/\/+$/, "")}/v1/metrics` : undefined)
}

/** What an OTLP collector takes. */
export const message = (
  families: ReadonlyArray<Family>,
  resource: Readonly<Record<string, string>>,
  start: number,
  now: number
): unknown => ({
  resourceMetrics: [
    {
      resource: { attributes: attributesOf(resource) },
      scopeMetrics: [
        {
          scope: { name: "nodepass" },
          metrics: families.map(({ help, name, samples, type }) => {
            const dataPoints = samples.map(({ labels, value }) => ({
              attributes: attributesOf(labels),
              startTimeUnixNano: `${start}000000`,
              timeUnixNano: `${now}000000`,
              asDouble: value
            }))
            return {
              name,
              description: help,
              // 2: sums since the start.
              ...(type === "counter"
                ? { sum: { dataPoints, aggregationTemporality: 2, isMonotonic: true } }
                : { gauge: { dataPoints } })
            }
          })
        }
      ]
    }
  ]
})

// internal

const attributesOf = (labels: Readonly<Record<string, string>>) =>
  Object.entries(labels).map(([key, stringValue]) => ({ key, value: { stringValue } }))

/** `a=b,c=d`, percent-encoded. */
const pairs = (text = ""): Readonly<Record<string, string>> =>
  Object.fromEntries(
    text.split(",").flatMap((pair) => {
      const [, name, value = ""] = /^\s*([^=\s]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? []
      return name === undefined ? [] : [[name, decoded(value)] as const]
    })
  )

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const headersOf = (env: Variables) => ({
  ...pairs(env["OTEL_EXPORTER_OTLP_HEADERS"]),
  ...pairs(env["OTEL_EXPORTER_OTLP_METRICS_HEADERS"])
})

const resourceOf = (env: Variables, version: string) => {
  const given = pairs(env["OTEL_RESOURCE_ATTRIBUTES"])
  const name = env["OTEL_SERVICE_NAME"] || given["service.name"] || "nodepass"
  return { ...given, "service.name": name, "service.version": version }
}

const interval = (env: Variables): Duration.Duration => {
  const millis = Number(env["OTEL_METRIC_EXPORT_INTERVAL"] || 60_000)
  return Duration.millis(Number.isFinite(millis) && millis >= 100 ? millis : 60_000)
}
