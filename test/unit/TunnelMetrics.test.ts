import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Checkpoint } from "../../src/tunnel/Checkpoint.js"
import * as Prometheus from "../../src/core/Prometheus.js"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import * as TunnelMetrics from "../../src/tunnel/TunnelMetrics.js"

/** Figures of a tunnel after so many bytes and visitors. */
const figures = (bytes: number, tcps = 0): TunnelMetrics.Figures => ({
  checkpoint: new Checkpoint({
    status: "serving",
    reason: "",
    mode: 1,
    ping: Option.some(12.5),
    pool: { idle: 8, capacity: 16, waiting: 1 },
    tcps,
    udps: 0,
    visitors: tcps,
    tcpRx: bytes,
    tcpTx: 2 * bytes,
    udpRx: 0,
    udpTx: 0,
    refused: { target: 3 }
  }),
  visitors: { tcp: tcps, udp: 0 },
  signals: { sent: 5, received: 6, resent: 1, sessions: 1, resumed: 2 },
  sessions: 1
})

const docs = Fs.readFileSync(Path.join(import.meta.dirname, "../../docs/telemetry.md"), "utf8")

let count = 0
const newId = () => `unit${count++}`

/** The samples of an instance, its other labels left out. */
const samples = (id: string): ReadonlyArray<string> =>
  Prometheus.text(Metric.unsafeSnapshot())
    .split("\n")
    .filter((line) => line.includes(`id="${id}"`))
    .map((line) => line.replace(/^nodepass_instance_/, "").replace(/id="[^"]*",?/, ""))

describe("the metrics of a tunnel", () => {
  it("are those in docs/telemetry.md, with their types and labels", () => {
    const id = newId()
    const metrics = TunnelMetrics.make({ id })
    const documented = [...docs.matchAll(/^\| `nodepass_instance_(\w+)` \| (\w+) \|[^|]*\|([^|]*)\|/gm)].map(
      ([, name, type, labels = ""]) => `${name} ${type} ${[...labels.matchAll(/\w+/g)].join(",")}`
    )
    const registered = Metric.unsafeSnapshot()
      .filter(({ metricKey }) => metricKey.tags.some(({ value }) => value === id))
      .map(({ metricKey, metricState }) => {
        const [, name] = metricKey.name.split("nodepass_instance_")
        const labels = metricKey.tags.map(({ key }) => key).filter((key) => key !== "id")
        return `${name} ${MetricState.isCounterState(metricState) ? "counter" : "gauge"} ${labels.join(",")}`
      })
    assert.deepStrictEqual([...new Set(registered)].toSorted(), documented.toSorted())
    metrics.remove()
  })

  it("are registered with the value 0, and publish what was counted", () => {
    const id = newId()
    const metrics = TunnelMetrics.make({ id })
    assert.include(samples(id), "up{} 0")
    assert.include(samples(id), 'refused_total{kind="slot"} 0')
    metrics.begin().publish(figures(100, 2))
    const expected = [
      "up{} 1",
      "serving{} 1",
      'visitors{protocol="tcp"} 2',
      'visitors_total{protocol="tcp"} 2',
      'bytes_total{protocol="tcp",direction="rx"} 100',
      'bytes_total{protocol="tcp",direction="tx"} 200',
      'refused_total{kind="target"} 3',
      "pool{} 8",
      "pool_capacity{} 16",
      "pool_waiting{} 1",
      "ping_milliseconds{} 12.5",
      "sessions{} 1",
      'sessions_total{kind="new"} 1',
      'sessions_total{kind="resumed"} 2',
      'signals_total{kind="sent"} 5',
      'signals_total{kind="received"} 6',
      'signals_total{kind="resent"} 1'
    ]
    assert.includeMembers([...samples(id)], expected)
    metrics.remove()
  })

  it("keep their counters when the tunnel ends, and go on counting when it opens again", () => {
    const id = newId()
    const metrics = TunnelMetrics.make({ id })
    const first = metrics.begin()
    first.publish(figures(100, 2))
    first.end(figures(150))
    // A late checkpoint of a tunnel that has ended does not restore its metrics.
    first.publish(figures(150, 2))
    assert.includeMembers([...samples(id)], ["up{} 0", "pool{} 0", 'bytes_total{protocol="tcp",direction="rx"} 150'])
    metrics.begin().publish(figures(10))
    assert.includeMembers([...samples(id)], ["up{} 1", 'bytes_total{protocol="tcp",direction="rx"} 160'])
    metrics.remove()
  })

  it("move to other labels with the values they have", () => {
    const id = newId()
    const metrics = TunnelMetrics.make({ id, alias: "old" })
    const run = metrics.begin()
    run.publish(figures(100))
    metrics.relabel({ id, alias: "new" })
    run.publish(figures(101))
    assert.include(samples(id), 'bytes_total{alias="new",protocol="tcp",direction="rx"} 101')
    assert.notInclude(samples(id).join(), "old")
    metrics.remove()
  })

  it.effect("of a tunnel by itself have its type, its addresses and the fiber's own labels", () =>
    Effect.gen(function* () {
      const id = newId()
      const config = yield* TunnelUrl.parse("server://key@:10101/127.0.0.1:8080?mode=1")
      const run = yield* Effect.tagMetrics(TunnelMetrics.begin(config), "id", id)
      run.publish(figures(1))
      assert.include(samples(id), 'up{type="server",tunnel=":10101/127.0.0.1:8080"} 1')
    })
  )

  it("are gone from Effect's registry once they are removed", () => {
    const id = newId()
    const before = Metric.unsafeSnapshot().length
    const metrics = TunnelMetrics.make({ id })
    assert.isAbove(Metric.unsafeSnapshot().length, before + 20)
    metrics.remove()
    assert.strictEqual(Metric.unsafeSnapshot().length, before)
  })
})
