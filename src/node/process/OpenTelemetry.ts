/**
 * Sends traces, metrics and logs of this process to an OpenTelemetry collector, by Effect's own OTLP exporter.
 *
 * Loaded on demand, when a variable names a collector, and by the command only: hosts set up their own exporter.
 */
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpMetrics from "@effect/opentelemetry/OtlpMetrics"
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Os from "node:os"
import process from "node:process"
import type { OtelConfig, Target } from "./OtelConfig.js"
import * as ProcessFigures from "./ProcessFigures.js"

export interface Options {
  readonly config: OtelConfig
  readonly version: string
}

/** Exports until the scope closes, whose end sends what is left. A collector that cannot be reached is one log line. */
export const layer = ({ config, version }: Options): Layer.Layer<never> => {
  const resource = {
    serviceName: config.serviceName,
    serviceVersion: version,
    attributes: { "host.name": Os.hostname(), "process.pid": process.pid, ...config.attributes }
  }
  const optionsOf = ({ headers, interval, url }: Target) => ({
    url,
    headers,
    exportInterval: interval,
    resource,
    shutdownTimeout: "1 second" as const
  })
  /** The exporter would read `OTEL_RESOURCE_ATTRIBUTES` once more, and leave it percent-encoded. */
  const configured = Effect.withConfigProvider(ConfigProvider.fromMap(new Map()))
  const traces = (target: Target) =>
    Layer.unwrapScoped(Effect.map(configured(OtlpTracer.make(optionsOf(target))), Layer.setTracer))
  const metrics = (target: Target) => {
    const publishing = Effect.repeat(ProcessFigures.publish(version), Schedule.spaced(target.interval))
    return Layer.scopedDiscard(
      Effect.zipRight(Effect.forkScoped(publishing), configured(OtlpMetrics.make(optionsOf(target))))
    )
  }
  const logs = (target: Target) => Logger.addScoped(configured(OtlpLogger.make(optionsOf(target))))
  const orNothing = Option.getOrElse(() => Layer.empty)
  return Layer.mergeAll(
    Option.match(config.traces, { onNone: () => Layer.setTracerEnabled(false), onSome: traces }),
    orNothing(Option.map(config.metrics, metrics)),
    orNothing(Option.map(config.logs, logs))
  ).pipe(
    Layer.provide(config.protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf),
    Layer.provide(client(config.timeout)),
    Layer.provide(FetchHttpClient.layer)
  )
}

// internal

/** Logs when the collector cannot be reached, and when it can be again: the exporter logs it at `debug` only. */
const client = (timeout: Duration.Duration) =>
  Layer.effect(
    HttpClient.HttpClient,
    Effect.map(HttpClient.HttpClient, (client) => {
      let reached = true
      const change = (now: boolean, line: Effect.Effect<void>) =>
        Effect.suspend(() => {
          const changed = now !== reached
          reached = now
          return changed ? line : Effect.void
        })
      return HttpClient.transform(client, (response, request) => {
        const late = () =>
          new HttpClientError.RequestError({ request, reason: "Transport", description: "no answer in time" })
        const failed = (why: string) =>
          change(false, Effect.logWarning(`cannot export telemetry: ${why}; trying again once a minute`))
        return response.pipe(
          Effect.timeoutFail({ duration: timeout, onTimeout: late }),
          Effect.tapBoth({
            onFailure: (error) => failed(reasonOf(error)),
            onSuccess: ({ status }) =>
              status < 300 ? change(true, Effect.logInfo("telemetry is exported again")) : failed(`status ${status}`)
          }),
          Effect.annotateLogs({ url: request.url })
        )
      })
    })
  )

/** The innermost cause has the reason: the message of `fetch` itself is always `fetch failed`. */
const reasonOf = (error: unknown): string =>
  error instanceof Error && error.cause !== undefined
    ? reasonOf(error.cause)
    : error instanceof Error && error.message !== ""
      ? error.message
      : String(error)
