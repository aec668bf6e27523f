import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as OtelConfig from "../../src/node/process/OtelConfig.js"

const read = (env: Readonly<Record<string, string>>) =>
  Effect.withConfigProvider(OtelConfig.config, ConfigProvider.fromMap(new Map(Object.entries(env))))

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }

describe("the OTEL_* variables", () => {
  it.effect.each([
    {},
    { OTEL_SERVICE_NAME: "edge", OTEL_METRIC_EXPORT_INTERVAL: "100" },
    { OTEL_EXPORTER_OTLP_ENDPOINT: "" },
    { ...endpoint, OTEL_SDK_DISABLED: "True" },
    { ...endpoint, OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "none", OTEL_LOGS_EXPORTER: "none" }
  ])("%j exports nothing", (env) => Effect.map(read(env), (config) => assert.deepStrictEqual(config, Option.none())))

  it.effect("one endpoint is that of all three kinds, with the standard paths and intervals", () =>
    Effect.gen(function* () {
      const config = Option.getOrThrow(yield* read({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318/otlp/" }))
      const targets = [config.traces, config.metrics, config.logs].map(Option.getOrThrow)
      assert.deepStrictEqual(
        targets.map(({ interval, url }) => [url, Duration.toMillis(interval)]),
        [
          ["http://collector:4318/otlp/v1/traces", 5000],
          ["http://collector:4318/otlp/v1/metrics", 60_000],
          ["http://collector:4318/otlp/v1/logs", 1000]
        ]
      )
      assert.deepInclude(config, { protocol: "http/json", serviceName: "nodepass", attributes: {} })
    })
  )

  it.effect("a kind may have an endpoint and headers of its own, or none", () =>
    Effect.gen(function* () {
      const config = Option.getOrThrow(
        yield* read({
          ...endpoint,
          OTEL_EXPORTER_OTLP_HEADERS: "a=1,b=2",
          OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "https://metrics/write",
          OTEL_EXPORTER_OTLP_METRICS_HEADERS: "b=%33",
          OTEL_LOGS_EXPORTER: "none"
        })
      )
      assert.deepInclude(Option.getOrThrow(config.metrics), {
        url: "https://metrics/write",
        headers: { a: "1", b: "3" }
      })
      assert.deepInclude(Option.getOrThrow(config.traces), { headers: { a: "1", b: "2" } })
      assert.deepStrictEqual(config.logs, Option.none())
    })
  )

  it.effect("OTEL_SERVICE_NAME goes before a service.name among the attributes", () =>
    Effect.gen(function* () {
      const attributes = { ...endpoint, OTEL_RESOURCE_ATTRIBUTES: " service.name = web , site=a%2Cb " }
      const config = Option.getOrThrow(yield* read(attributes))
      assert.deepInclude(config, { serviceName: "web", attributes: { site: "a,b" } })
      const named = Option.getOrThrow(yield* read({ ...attributes, OTEL_SERVICE_NAME: "edge" }))
      assert.deepInclude(named, { serviceName: "edge", attributes: { site: "a,b" } })
    })
  )

  it.effect.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" }, /^OTEL_EXPORTER_OTLP_ENDPOINT: expected an http/],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: "secret" }, /^OTEL_EXPORTER_OTLP_HEADERS: expected name=value pairs/],
    [{ ...endpoint, OTEL_RESOURCE_ATTRIBUTES: "a=%zz" }, /^OTEL_RESOURCE_ATTRIBUTES: expected .* percent-encoded$/],
    [{ ...endpoint, OTEL_METRIC_EXPORT_INTERVAL: "1m" }, /^OTEL_METRIC_EXPORT_INTERVAL: expected a number of millis/],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }, /^OTEL_EXPORTER_OTLP_PROTOCOL: expected http\/json or/]
  ] as ReadonlyArray<readonly [Record<string, string>, RegExp]>)("%j is refused by name", ([env, message]) =>
    Effect.map(Effect.flip(read(env)), (error) => assert.match(OtelConfig.explain(error), message))
  )
})
