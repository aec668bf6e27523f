/**
 * Telemetry of the command, as the `OTEL_*` variables configure it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as OtelConfig from "./OtelConfig.js"

export interface Options {
  readonly version: string
}

/**
 * Exports traces, metrics and logs if the variables name a collector. Otherwise turns spans off, which cost 10 to 20 us each.
 *
 * A wrong variable is one warning, and nothing is exported: a tunnel does not fail for that.
 */
export const layer = (options: Options): Layer.Layer<never> =>
  Layer.unwrapEffect(
    Effect.matchEffect(OtelConfig.config, {
      onFailure: (error) =>
        Effect.as(Effect.logWarning(`telemetry is not exported: ${OtelConfig.explain(error)}`), withoutSpans),
      onSuccess: Option.match({
        onNone: () => Effect.succeed(withoutSpans),
        onSome: (config) =>
          Effect.map(
            Effect.promise(() => import("./OpenTelemetry.js")),
            (OpenTelemetry) => OpenTelemetry.layer({ ...options, config })
          )
      })
    })
  )

// internal

const withoutSpans = Layer.setTracerEnabled(false)
