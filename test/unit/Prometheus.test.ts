import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import * as MetricLabel from "effect/MetricLabel"
import * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Prometheus from "../../src/core/Prometheus.js"

/** The text of the metrics whose names begin with the prefix: the registry is one for the whole process. */
const textOf = (prefix: string) =>
  Effect.map(Metric.snapshot, (pairs) =>
    Prometheus.text(pairs.filter(({ metricKey }) => metricKey.name.startsWith(prefix)))
  )

/** A label's value as a parser of the format reads it. */
const parseValue = (text: string) => text.replaceAll(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char))

describe("Prometheus.text", () => {
  it.effect("groups the series of a metric under one HELP and one TYPE, in the order of the names", () =>
    Effect.gen(function* () {
      const bytes = Metric.counter("prom_b_bytes_total", { description: "Bytes\nsent.", incremental: true })
      yield* Metric.incrementBy(Metric.tagged(bytes, "protocol", "tcp"), 10)
      yield* Metric.set(Metric.gauge("prom_b_active"), 3)
      yield* Metric.incrementBy(Metric.tagged(bytes, "protocol", "udp"), 5)
      const lines = (yield* textOf("prom_b_")).split("\n")
      assert.deepStrictEqual(lines.slice(0, 4), [
        "# TYPE prom_b_active gauge",
        "prom_b_active 3",
        "# HELP prom_b_bytes_total Bytes\\nsent.",
        "# TYPE prom_b_bytes_total counter"
      ])
      assert.sameMembers(lines.slice(4, 6), [
        'prom_b_bytes_total{protocol="tcp"} 10',
        'prom_b_bytes_total{protocol="udp"} 5'
      ])
      assert.deepStrictEqual(lines.slice(6), [""])
    })
  )

  it.effect("a counter that may decrease is a gauge", () =>
    Effect.gen(function* () {
      yield* Metric.incrementBy(Metric.counter("prom_c_active"), -1)
      yield* Metric.incrementBy(Metric.counter("prom_c_big", { bigint: true, incremental: true }), 2n ** 60n)
      assert.strictEqual(
        yield* textOf("prom_c_"),
        "# TYPE prom_c_active gauge\nprom_c_active -1\n# TYPE prom_c_big counter\nprom_c_big 1152921504606846976\n"
      )
    })
  )

  it.effect("the buckets of a histogram are cumulative, and +Inf is there once", () =>
    Effect.gen(function* () {
      const latency = Metric.histogram("prom_h_seconds", MetricBoundaries.fromIterable([0.1, 1]))
      for (const seconds of [0.05, 0.5, 5]) yield* Metric.update(latency, seconds)
      assert.strictEqual(
        yield* textOf("prom_h_"),
        `# TYPE prom_h_seconds histogram
prom_h_seconds_bucket{le="0.1"} 1
prom_h_seconds_bucket{le="1"} 2
prom_h_seconds_bucket{le="+Inf"} 3
prom_h_seconds_sum 5.55
prom_h_seconds_count 3
`
      )
    })
  )

  it.effect("a summary has its quantiles, a frequency its words", () =>
    Effect.gen(function* () {
      const size = Metric.summary({ name: "prom_s_size", maxAge: "1 hour", maxSize: 10, error: 0, quantiles: [0.5] })
      yield* Metric.update(size, 4)
      yield* Metric.update(Metric.frequency("prom_s_words"), "tcp")
      assert.strictEqual(
        yield* textOf("prom_s_"),
        `# TYPE prom_s_size summary
prom_s_size{quantile="0.5"} 4
prom_s_size_sum 4
prom_s_size_count 1
# TYPE prom_s_words counter
prom_s_words{key="tcp"} 1
`
      )
    })
  )

  it("a name that Prometheus does not take is changed, and a label that is there twice has the later value", () => {
    const key = MetricKey.gauge("9 lives/cat")
    const labels = [MetricLabel.make("a-b", "1"), MetricLabel.make("a.b", "2")]
    const pair = MetricPair.unsafeMake(MetricKey.taggedWithLabels(key, labels), MetricState.gauge(NaN))
    assert.strictEqual(Prometheus.text([pair]), '# TYPE _9_lives_cat gauge\n_9_lives_cat{a_b="2"} NaN\n')
  })

  it("only the first type of a name is rendered", () => {
    const gauge = MetricPair.unsafeMake(MetricKey.gauge("x"), MetricState.gauge(1))
    const words = MetricPair.unsafeMake(MetricKey.frequency("x"), MetricState.frequency(new Map([["a", 1]])))
    assert.strictEqual(Prometheus.text([gauge, words]), "# TYPE x gauge\nx 1\n")
  })

  it.prop(
    "whatever a label's value is, it is one line, from which the value can be read",
    [FastCheck.fullUnicodeString()],
    ([value]) => {
      const key = MetricKey.tagged(MetricKey.gauge("x"), "label", value)
      const [, line = "", ...rest] = Prometheus.text([MetricPair.unsafeMake(key, MetricState.gauge(1))]).split("\n")
      assert.deepStrictEqual(rest, [""])
      assert.strictEqual(parseValue(/^x\{label="(.*)"\} 1$/s.exec(line)?.[1] ?? "?"), value)
    }
  )
})
