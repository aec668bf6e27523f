/**
 * The master in numbers: gathered when they are asked for, for Prometheus and for OpenTelemetry alike.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { HostFigures } from "./HostFigures.js"
import type { Instance } from "./Instance.js"
import { Master } from "./Master.js"

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** Samples of one thing; a counter only ever grows, but for a reset. */
export interface Family {
  readonly name: string
  readonly help: string
  readonly type: "counter" | "gauge"
  readonly samples: ReadonlyArray<Sample>
}

export class Metrics extends Context.Tag("nodepass/Metrics")<
  Metrics,
  {
    readonly families: Effect.Effect<ReadonlyArray<Family>>
    /** Counts a request that was answered. */
    readonly answered: (method: string, status: number) => void
    /** Counts subscribers of events: one more, or one less. */
    readonly subscribed: (change: 1 | -1) => void
  }
>() {}

export interface Options {
  readonly version: string
}

export const layer = ({ version }: Options): Layer.Layer<Metrics, never, HostFigures | Master> =>
  Layer.effect(
    Metrics,
    Effect.gen(function* () {
      const master = yield* Master
      const host = yield* HostFigures
      const start = yield* Clock.currentTimeMillis
      const requests = new Map<string, { readonly labels: Sample["labels"]; value: number }>()
      let subscribers = 0
      return Metrics.of({
        families: Effect.gen(function* () {
          const instances = yield* master.list
          const now = yield* Clock.currentTimeMillis
          const single = (value: number) => [{ labels: {}, value }]
          return [
            family("nodepass_info", "gauge", "Version of the master.", [{ labels: { version }, value: 1 }]),
            family("nodepass_uptime_seconds", "gauge", "Since the master's start.", single((now - start) / 1000)),
            family("nodepass_memory_bytes", "gauge", "Resident memory of the master.", single(yield* host.memory)),
            family("nodepass_instances", "gauge", "Instances by status.", byStatus(instances)),
            family("nodepass_event_subscribers", "gauge", "Streams of events open now.", single(subscribers)),
            family("nodepass_http_requests_total", "counter", "Requests answered.", [...requests.values()]),
            family(
              "nodepass_instance_up",
              "gauge",
              "1 while the instance runs.",
              instances.map((instance) => ({
                labels: labelsOf(instance),
                value: instance.status === "running" ? 1 : 0
              }))
            ),
            family("nodepass_instance_visitors", "gauge", "Visitors now.", [
              ...each(instances, { protocol: "tcp" }, ({ tcps }) => tcps),
              ...each(instances, { protocol: "udp" }, ({ udps }) => udps)
            ]),
            family(
              "nodepass_instance_pool",
              "gauge",
              "Pool connections ready.",
              each(instances, {}, ({ pool }) => pool)
            ),
            family(
              "nodepass_instance_ping_milliseconds",
              "gauge",
              "Round trip.",
              each(instances, {}, ({ ping }) => ping)
            ),
            family("nodepass_instance_bytes_total", "counter", "Bytes from (rx) and to (tx) the tunnel's other end.", [
              ...each(instances, { protocol: "tcp", direction: "rx" }, ({ tcprx }) => tcprx),
              ...each(instances, { protocol: "tcp", direction: "tx" }, ({ tcptx }) => tcptx),
              ...each(instances, { protocol: "udp", direction: "rx" }, ({ udprx }) => udprx),
              ...each(instances, { protocol: "udp", direction: "tx" }, ({ udptx }) => udptx)
            ])
          ]
        }),
        answered: (method, status) => {
          const labels = { method: methods.has(method) ? method : "other", status: String(status) }
          const name = `${labels.method} ${status}`
          const known = requests.get(name)
          if (known === undefined) requests.set(name, { labels, value: 1 })
          else known.value++
        },
        subscribed: (change) => {
          subscribers += change
        }
      })
    })
  )

/** Text for Prometheus, format 0.0.4. */
export const prometheus = (families: ReadonlyArray<Family>): string =>
  families
    .map(({ help, name, samples, type }) => {
      const lines = samples.map(({ labels, value }) => {
        const texts = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`)
        return `${name}${texts.length === 0 ? "" : `{${texts.join(",")}}`} ${value}\n`
      })
      return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`
    })
    .join("")

// internal

const methods = new Set(["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "HEAD"])

const family = (name: string, type: Family["type"], help: string, samples: ReadonlyArray<Sample>): Family => ({
  name,
  type,
  help,
  samples
})

const labelsOf = ({ alias, id, type }: Instance) => ({ id, alias, type })

const each = (
  instances: ReadonlyArray<Instance>,
  labels: Sample["labels"],
  value: (instance: Instance) => number
): ReadonlyArray<Sample> =>
  instances.map((instance) => ({ labels: { ...labelsOf(instance), ...labels }, value: value(instance) }))

const byStatus = (instances: ReadonlyArray<Instance>): ReadonlyArray<Sample> =>
  (["running", "stopped", "error"] as const).map((status) => ({
    labels: { status },
    value: instances.filter((instance) => instance.status === status).length
  }))

const escaped = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")
