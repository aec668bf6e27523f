/**
 * Metrics as text for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import * as Metric from "effect/Metric"
import * as MetricKeyType from "effect/MetricKeyType"
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** The `content-type` of `text`. */
export const contentType = "text/plain; version=0.0.4; charset=utf-8"

/** Every metric of this process, in the order of their names. */
export const snapshot: Effect.Effect<string> = Effect.map(Metric.snapshot, (pairs) => text(pairs))

/**
 * Renders metrics in text format 0.0.4.
 *
 * A counter that may decrease is a gauge. The words of a frequency are the label `key`, as Effect's OTLP exporter has it.
 * Prometheus refuses a name with two types, so only the type that comes first under a name is rendered.
 */
export const text = (pairs: Iterable<MetricPair.MetricPair.Untyped>): string => {
  const families = new Map<string, Family>()
  for (const { metricKey, metricState } of pairs) {
    const name = nameOf(metricKey.name)
    const labels = new Map<string, string>()
    for (const { key, value } of metricKey.tags) labels.set(labelOf(key), value)
    const { samples, type } = render(metricKey.keyType, metricState)
    const help = Option.getOrElse(metricKey.description, () => "")
    const family = families.get(name) ?? { type, help, lines: [] }
    families.set(name, family)
    if (family.type !== type) continue
    for (const { label, suffix = "", value } of samples) {
      const all = label === undefined ? labels : new Map([...labels, label])
      family.lines.push(`${name}${suffix}${labelsText(all)} ${numberText(value)}\n`)
    }
  }
  return [...families]
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, { help, lines, type }]) => `${helpText(name, help)}# TYPE ${name} ${type}\n${lines.join("")}`)
    .join("")
}

// internal

type Type = "counter" | "gauge" | "histogram" | "summary" | "untyped"

interface Family {
  readonly type: Type
  readonly help: string
  readonly lines: Array<string>
}

interface Sample {
  readonly suffix?: "_bucket" | "_sum" | "_count"
  /** In addition to the labels of the metric. */
  readonly label?: readonly [name: string, value: string]
  readonly value: number | bigint
}

const render = (key: unknown, state: unknown): { readonly type: Type; readonly samples: ReadonlyArray<Sample> } => {
  if (MetricState.isCounterState(state)) {
    const increases = MetricKeyType.isCounterKey(key) && key.incremental
    return { type: increases ? "counter" : "gauge", samples: [{ value: state.count }] }
  }
  if (MetricState.isGaugeState(state)) return { type: "gauge", samples: [{ value: state.value }] }
  if (MetricState.isFrequencyState(state)) {
    const samples = Array.from(state.occurrences, ([word, value]) => ({ label: ["key", word] as const, value }))
    return { type: "counter", samples }
  }
  if (MetricState.isHistogramState(state)) {
    // Effect counts each bucket with all below it, and its last boundary is +Inf: both as Prometheus requires.
    const buckets = state.buckets.map(([boundary, value]): Sample => ({
      suffix: "_bucket",
      label: ["le", numberText(boundary)],
      value
    }))
    return { type: "histogram", samples: [...buckets, ...totals(state)] }
  }
  if (MetricState.isSummaryState(state)) {
    const quantiles = state.quantiles.flatMap(([quantile, value]) =>
      Option.toArray(value).map((value): Sample => ({ label: ["quantile", numberText(quantile)], value }))
    )
    return { type: "summary", samples: [...quantiles, ...totals(state)] }
  }
  return { type: "untyped", samples: [] }
}

const totals = ({ count, sum }: { readonly count: number; readonly sum: number }): ReadonlyArray<Sample> => [
  { suffix: "_sum", value: sum },
  { suffix: "_count", value: count }
]

const nameOf = (name: string): string => (/^[a-zA-Z_:][\w:]*$/.test(name) ? name : changed(name, /[^\w:]/g))
const labelOf = (name: string): string => (/^[a-zA-Z_]\w*$/.test(name) ? name : changed(name, /\W/g))
const changed = (name: string, bad: RegExp): string => name.replaceAll(bad, "_").replace(/^(?=\d)/, "_")

const labelsText = (labels: ReadonlyMap<string, string>): string => {
  let text = ""
  for (const [name, value] of labels) text += `${text === "" ? "{" : ","}${name}="${escapeLabel(value)}"`
  return text === "" ? "" : `${text}}`
}

const helpText = (name: string, help: string): string => (help === "" ? "" : `# HELP ${name} ${escapeHelp(help)}\n`)

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")
const escapeLabel = (text: string): string => (/[\\"\n]/.test(text) ? escapeHelp(text).replaceAll('"', '\\"') : text)

const numberText = (value: number | bigint): string =>
  value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)
