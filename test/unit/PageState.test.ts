import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { Id, type Instance, noMeta, noTraffic } from "../../src/master/Instance.js"
import type { Event } from "../../src/page/Api.js"
import { makeReader } from "../../src/page/EventFeed.js"
import * as Format from "../../src/page/Format.js"
import * as Samples from "../../src/page/Samples.js"
import { nothing, reduce, type Shown } from "../../src/page/State.js"

const start = Date.parse("2026-01-31T12:00:00Z")

const instance = (id: string, more: Partial<Instance> = {}): Instance => ({
  id: Id.make(id),
  alias: "",
  type: "client",
  status: "running",
  url: "client://secret@127.0.0.1:1/127.0.0.1:2",
  config: "",
  restart: true,
  meta: noMeta,
  mode: 1,
  ping: 0,
  pool: 0,
  tcps: 0,
  udps: 0,
  ...noTraffic,
  error: "",
  serving: true,
  reason: "",
  refused: {},
  version: 1,
  ...more
})

const event = (type: Event["type"], millis: number, of: Instance | null): Event => ({
  type,
  time: new Date(start + millis).toISOString(),
  instance: of,
  logs: ""
})

const texts = { mid: "", alias: "", os: "", arch: "", ver: "", name: "", log: "", tls: "", crt: "", key: "" }
const memory = { mem_total: 0, mem_used: 0, mem_free: 0, swap_total: 0, swap_used: 0, swap_free: 0 }
const info = { ...texts, ...memory, cpu: 0, netrx: 0, nettx: 0, diskr: 0, diskw: 0, sysup: 0, uptime: 0 }

const after = (events: ReadonlyArray<Event>, state = nothing, replaces = false) =>
  reduce(state, { _tag: "Events", events, replaces, now: start })

describe("the page's state", () => {
  it.prop(
    "holds each instance as of its last event, without deleted ones and the entry of the API key",
    [
      FastCheck.array(
        FastCheck.record({
          type: FastCheck.constantFrom<Event["type"]>("create", "update", "delete"),
          id: FastCheck.constantFrom("00000001", "00000002", "********"),
          alias: FastCheck.string()
        })
      )
    ],
    ([sent]) => {
      const expected = new Map<string, string>()
      for (const { alias, id, type } of sent) {
        if (id === "********") continue
        if (type === "delete") expected.delete(id)
        else expected.set(id, alias)
      }
      const events = sent.map(({ alias, id, type }, at) =>
        event(type, at * 10, { ...instance("00000001"), id: id === "********" ? id : Id.make(id), alias })
      )
      // All at once, or one by one: the result is the same.
      const whole = after(events)
      const steps = events.reduce((state, one) => after([one], state), nothing)
      for (const { instances } of [whole, steps]) {
        assert.deepStrictEqual(
          Array.from(instances, ([id, shown]) => [id, shown.instance.alias]),
          [...expected]
        )
      }
    }
  )

  it("drops instances that a new list does not contain", () => {
    const before = after([event("initial", 0, instance("00000001")), event("initial", 0, instance("00000002"))])
    const now = after([event("initial", 9, instance("00000002"))], before, true)
    assert.deepStrictEqual([...now.instances.keys()], ["00000002"])
  })

  it("computes rates between events, and zero without events", () => {
    const at = (millis: number, tcprx: number, udptx: number) =>
      event("update", millis, instance("00000001", { tcprx, udptx }))
    const rateOf = (state: typeof nothing) => state.instances.get("00000001")?.rate
    const first = after([at(0, 1000, 0)])
    assert.deepStrictEqual(rateOf(first), { rx: 0, tx: 0 })
    const second = after([at(2000, 5000, 200)], first)
    assert.deepStrictEqual(rateOf(second), { rx: 2000, tx: 100 })
    // A change of something else, in between and with the same figures, does not affect the rate.
    assert.deepStrictEqual(rateOf(after([at(2500, 5000, 200)], second)), { rx: 2000, tx: 100 })
    // A reset carries nothing back.
    assert.deepStrictEqual(rateOf(after([at(4000, 0, 0)], second)), { rx: 0, tx: 0 })
    assert.deepStrictEqual(rateOf(reduce(second, { _tag: "Info", info, now: start + 13_000 })), { rx: 0, tx: 0 })
  })
})

describe("a chart's samples", () => {
  const shown = (millis: number, rx: number): Shown => ({
    instance: instance("00000001"),
    time: millis,
    receivedAt: millis,
    rate: { rx: 0, tx: 0 },
    since: { time: millis, rx, tx: 0 }
  })

  it.prop(
    "add up to the bytes of the instance, at increasing times",
    [
      FastCheck.array(
        FastCheck.tuple(FastCheck.integer({ min: 0, max: 60_000 }), FastCheck.integer({ min: 0, max: 1_000_000 })),
        { minLength: 2, maxLength: 50 }
      )
    ],
    ([steps]) => {
      let [time, rx] = [start, 0]
      let samples: Samples.Samples = []
      for (const [millis, bytes] of steps) {
        time += millis
        rx += bytes
        samples = Samples.add(samples, shown(time, rx))
      }
      const first = samples[0]?.rx ?? 0
      const last = samples.at(-1)?.rx ?? 0
      const [times, rates] = Samples.rates(samples, time)
      assert.isTrue(times.every((time, at) => at === 0 || time > (times[at - 1] ?? 0)))
      assert.isTrue(rates.every((rate) => rate >= 0))
      const carried = rates.reduce((sum, rate, at) => {
        const before = at === 0 ? (samples[0]?.time ?? 0) / 1000 : (times[at - 1] ?? 0)
        return sum + rate * ((times[at] ?? 0) - before)
      }, 0)
      assert.approximately(carried, last - first, 1)
    }
  )

  it("put traffic after an idle time right before its event, and show the idle time until now", () => {
    const samples = Samples.add(Samples.add([], shown(0, 0)), shown(60_000, 5000))
    assert.deepStrictEqual(Samples.rates(samples, 80_000), [
      [55, 60, 65, 80],
      [0, 1000, 0, 0],
      [0, 0, 0, 0]
    ])
  })

  it("start with the master's history and continue with events", () => {
    const point = (time: number, tcprx: number) => ({ time, ...noTraffic, tcprx, tcps: 0, udps: 0 })
    const live = Samples.add([], shown(10_000, 70))
    const joined = Samples.join(Samples.fromPoints([point(0, 0), point(5000, 50), point(10_000, 70)]), live)
    assert.deepStrictEqual(
      joined.map(({ rx, time }) => [time, rx]),
      [
        [0, 0],
        [5000, 50],
        [10_000, 70]
      ]
    )
  })
})

it.prop(
  "events are read whole, however the stream is cut",
  [FastCheck.array(FastCheck.string(), { minLength: 1 }), FastCheck.array(FastCheck.nat(400))],
  ([logs, cuts]) => {
    const text = logs
      .map(
        (line, at) =>
          `event: instance\nid: run-${at}\ndata: ${JSON.stringify({ ...event("log", 0, null), logs: line })}`
      )
      .join("\n\n: still here\n\n")
    const whole = `retry: 3000\n\n${text}\n\n`
    const read = makeReader()
    const places = [...new Set([0, ...cuts.map((cut) => cut % whole.length), whole.length])].toSorted((a, b) => a - b)
    const found = places.slice(1).flatMap((end, at) => read(whole.slice(places[at], end)))
    assert.deepStrictEqual(
      found.map(({ event, id }) => [id, event.logs]),
      logs.map((line, at) => [`run-${at}`, line])
    )
  }
)

describe("texts", () => {
  it("hide keys", () => {
    const url = "server://s3cret@:1/:2?log=info"
    assert.strictEqual(Format.masked(url), "server://***@:1/:2?log=info")
    assert.strictEqual(Format.endsOf("client://s3cret@a:1,b:2/c:3?mode=2"), "a:1,b:2 → c:3")
    assert.isFalse(Format.matches(instance("00000001"), "secret"))
    assert.isTrue(
      Format.matches(instance("00000001", { alias: "Web", meta: { ...noMeta, tags: { env: "prod" } } }), "web prod")
    )
  })

  it("are formatted for people", () => {
    assert.deepStrictEqual([0, 1023, 1536, 1024 ** 2 * 250, 3.4].map(Format.bytes), [
      "0 B",
      "1023 B",
      "1.5 KiB",
      "250 MiB",
      "3 B"
    ])
    assert.deepStrictEqual([0, 59, 3600, 90_061].map(Format.duration), ["0 s", "59 s", "1 h", "1 d 1 h"])
  })
})
