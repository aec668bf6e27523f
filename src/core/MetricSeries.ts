/**
 * Metrics of something that ends before the process does, such as an instance of a master: they are removed with it.
 */
import * as Metric from "effect/Metric"
import * as MetricKey from "effect/MetricKey"
import * as MetricLabel from "effect/MetricLabel"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Predicate from "effect/Predicate"

/** Labels by name. */
export type Labels = Readonly<Record<string, string>>

/** What a metric is called and means. A counter only increases. */
export interface Definition {
  readonly type: "counter" | "gauge"
  readonly name: string
  readonly description: string
}

/** One value over time: a metric under one set of labels. */
export interface Series {
  readonly key: MetricKey.MetricKey.Untyped
  /** Adds to a counter, and sets a gauge. */
  readonly update: (value: number) => void
}

/** Registers the metric under these labels, with the value 0 if it is new. */
export const make = (definition: Definition, labels: ReadonlyArray<MetricLabel.MetricLabel>): Series => {
  const { description, name, type } = definition
  const registry = Metric.globalMetricRegistry
  if (type === "counter") {
    const key = MetricKey.taggedWithLabels(MetricKey.counter(name, { description, incremental: true }), labels)
    const counter = registry.get(key)
    return { key, update: (value) => counter.update(value) }
  }
  const key = MetricKey.taggedWithLabels(MetricKey.gauge(name, { description }), labels)
  const gauge = registry.get(key)
  return { key, update: (value) => gauge.update(value) }
}

export const labelsOf = (labels: Labels): ReadonlyArray<MetricLabel.MetricLabel> =>
  Object.entries(labels).map(([name, value]) => MetricLabel.make(name, value))

/**
 * Removes a series from the registry: neither Prometheus nor OTLP shows it any more.
 *
 * Effect 3 never removes a metric by itself, and its registry has no operation for it: this one reaches into the registry's
 * table. Without it a master would hold some 20 KB for ever for each instance that it ever had.
 */
export const remove = ({ key }: Series): void => {
  const registry: unknown = Metric.globalMetricRegistry
  if (Predicate.hasProperty(registry, "map") && isTable(registry.map)) MutableHashMap.remove(registry.map, key)
}

// internal

type Table = MutableHashMap.MutableHashMap<MetricKey.MetricKey.Untyped, unknown>

const isTable = (value: unknown): value is Table => Predicate.hasProperty(value, Symbol.for("effect/MutableHashMap"))
