/**
 * What a tunnel counts, as Effect metrics. The data path adds to plain counters; each checkpoint publishes them here.
 *
 * Names and meanings: docs/telemetry.md. They are the same for a tunnel by itself and for an instance of a master; only the
 * labels differ.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as MetricSeries from "../core/MetricSeries.js"
import { refusalKinds } from "../core/TunnelEvent.js"
import type { Counts } from "../signal/SignalCounts.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"
import type { Checkpoint } from "./Checkpoint.js"

/** What there is to publish, counted since the tunnel opened. */
export interface Figures {
  readonly checkpoint: Checkpoint
  /** Visitors since the start. */
  readonly visitors: { readonly tcp: number; readonly udp: number }
  readonly signals: Counts
  /** Sessions that have a control connection now. */
  readonly sessions: number
}

/** A tunnel that is open. */
export interface Run {
  readonly publish: (figures: Figures) => void
  /** Publishes the last figures: the counters keep their values, and every gauge becomes 0. Later figures are ignored. */
  readonly end: (figures: Figures) => void
}

/** The metrics of one tunnel, which may open several times; each time its figures count from 0 and are added up here. */
export interface TunnelMetrics {
  readonly begin: () => Run
  /** Moves the metrics to these labels, which have the names of those before; does nothing when they are the same. */
  readonly relabel: (labels: MetricSeries.Labels) => void
  /** Removes the metrics from the registry. */
  readonly remove: () => void
}

/**
 * The metrics that a tunnel publishes to; a master provides those of the instance.
 *
 * Defaults to `None`: the tunnel makes its own, labelled with its `type` and its addresses as `tunnel`, after the labels
 * that the fiber has by `Effect.tagMetrics`.
 */
export class Current extends Context.Reference<Current>()("nodepass/TunnelMetrics", {
  defaultValue: (): Option.Option<TunnelMetrics> => Option.none()
}) {}

/** Registers every metric under these labels, with the value 0. */
export const make = (initial: MetricSeries.Labels): TunnelMetrics => {
  let labels = initial
  let states = register(initial)
  const removeAll = () => states.forEach(({ series }) => MetricSeries.remove(series))
  return {
    begin: () => {
      const before = states.map(({ value }) => value)
      let ended = false
      const publish = (figures: Figures) => {
        if (ended) return
        for (const [at, state] of states.entries()) {
          set(state, (isCounter(state) ? (before[at] ?? 0) : 0) + state.row.read(figures))
        }
      }
      return {
        publish,
        end: (figures) => {
          publish(figures)
          ended = true
          for (const state of states) if (!isCounter(state)) set(state, 0)
        }
      }
    },
    relabel: (next) => {
      if (Object.entries(next).every(([name, value]) => labels[name] === value)) return
      labels = next
      const before = states.map(({ value }) => value)
      removeAll()
      states = register(next)
      states.forEach((state, at) => set(state, before[at] ?? 0))
    },
    remove: removeAll
  }
}

/** Begins a run of this tunnel, with the `Current` metrics or its own. */
export const begin = (config: TunnelConfig): Effect.Effect<Run> =>
  Effect.gen(function* () {
    const current = yield* Current
    if (Option.isSome(current)) return current.value.begin()
    const tags = yield* FiberRef.get(FiberRef.currentMetricLabels)
    const given = Object.fromEntries(tags.map(({ key, value }) => [key, value]))
    const own = { type: config._tag.toLowerCase(), tunnel: `${String(config.tunnel)}/${config.targets.join(",")}` }
    return make({ ...given, ...own }).begin()
  })

// internal

interface Row {
  readonly definition: MetricSeries.Definition
  /** In addition to the tunnel's. */
  readonly labels: MetricSeries.Labels
  readonly read: (figures: Figures) => number
}

interface State {
  readonly row: Row
  readonly series: MetricSeries.Series
  value: number
}

const register = (labels: MetricSeries.Labels): ReadonlyArray<State> => {
  const common = MetricSeries.labelsOf(labels)
  return rows.map((row) => {
    const series = MetricSeries.make(row.definition, [...common, ...MetricSeries.labelsOf(row.labels)])
    return { row, series, value: 0 }
  })
}

const isCounter = ({ row }: State): boolean => row.definition.type === "counter"

const set = (state: State, value: number) => {
  state.series.update(isCounter(state) ? value - state.value : value)
  state.value = value
}

const metric = (
  type: MetricSeries.Definition["type"],
  name: string,
  description: string,
  ...series: ReadonlyArray<readonly [labels: MetricSeries.Labels, read: Row["read"]]>
): ReadonlyArray<Row> =>
  series.map(([labels, read]) => ({
    definition: { type, name: `nodepass_instance_${name}`, description },
    labels,
    read
  }))

const tcp = { protocol: "tcp" }
const udp = { protocol: "udp" }

const rows: ReadonlyArray<Row> = [
  metric("gauge", "up", "1 while the instance runs.", [{}, () => 1]),
  metric(
    "gauge",
    "serving",
    "1 while visitors can be served: a session has a control connection, or the tunnel forwards by itself, and not every target failed.",
    [{}, ({ checkpoint }) => (checkpoint.status === "serving" ? 1 : 0)]
  ),
  metric(
    "gauge",
    "visitors",
    "Visitors now.",
    [tcp, ({ checkpoint }) => checkpoint.tcps],
    [udp, ({ checkpoint }) => checkpoint.udps]
  ),
  metric(
    "counter",
    "visitors_total",
    "Visitors served.",
    [tcp, ({ visitors }) => visitors.tcp],
    [udp, ({ visitors }) => visitors.udp]
  ),
  metric(
    "counter",
    "bytes_total",
    "Bytes from (rx) and to (tx) the tunnel's other end.",
    [{ ...tcp, direction: "rx" }, ({ checkpoint }) => checkpoint.tcpRx],
    [{ ...tcp, direction: "tx" }, ({ checkpoint }) => checkpoint.tcpTx],
    [{ ...udp, direction: "rx" }, ({ checkpoint }) => checkpoint.udpRx],
    [{ ...udp, direction: "tx" }, ({ checkpoint }) => checkpoint.udpTx]
  ),
  metric(
    "counter",
    "refused_total",
    "What could not be served, by kind.",
    ...refusalKinds.map((kind) => [{ kind }, ({ checkpoint }: Figures) => checkpoint.refused[kind] ?? 0] as const)
  ),
  metric("gauge", "pool", "Pool connections ready.", [{}, ({ checkpoint }) => checkpoint.pool.idle]),
  metric("gauge", "pool_capacity", "Pool connections that the pool aims at.", [
    {},
    ({ checkpoint }) => checkpoint.pool.capacity
  ]),
  metric("gauge", "pool_waiting", "Visitors who wait for a pool connection.", [
    {},
    ({ checkpoint }) => checkpoint.pool.waiting
  ]),
  metric("gauge", "ping_milliseconds", "Round trip of the control connection; 0 without one.", [
    {},
    ({ checkpoint }) => Option.getOrElse(checkpoint.ping, () => 0)
  ]),
  metric("gauge", "sessions", "Sessions that have a control connection.", [{}, ({ sessions }) => sessions]),
  metric(
    "counter",
    "sessions_total",
    "Control connections that began a session (new) or went on with one (resumed).",
    [{ kind: "new" }, ({ signals }) => signals.sessions],
    [{ kind: "resumed" }, ({ signals }) => signals.resumed]
  ),
  metric(
    "counter",
    "signals_total",
    "Signals on the control connection; those sent again are also counted as sent.",
    [{ kind: "sent" }, ({ signals }) => signals.sent],
    [{ kind: "received" }, ({ signals }) => signals.received],
    [{ kind: "resent" }, ({ signals }) => signals.resent]
  )
].flat()
