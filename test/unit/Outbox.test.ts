import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as v8 from "node:v8"
import * as Address from "../../src/core/Address.js"
import * as ReplayWindow from "../../src/wire/ReplayWindow.js"
import * as Outbox from "../../src/signal/Outbox.js"
import type { Numbered } from "../../src/wire/Dialect.js"
import * as Signal from "../../src/wire/Signal.js"

const launch = (port: number) =>
  Signal.makeLaunch({
    protocol: "tcp",
    id: Signal.ConnectionId.make(port.toString(16).padStart(8, "0")),
    visitor: Address.make("198.51.100.1", port),
    entry: Option.none()
  })
const portOf = ({ signal }: Numbered) => (signal._tag === "Launch" ? signal.visitor.port : -1)
const never = { due: Infinity, giveUp: () => assert.fail("it was refused") }
const tags = (batch: ReadonlyArray<Numbered>) => batch.map(({ signal }) => signal._tag)

/** What happens to an outbox, and to the batches taken from it. */
type Step =
  | { readonly _tag: "Launch" }
  | { readonly _tag: "Send"; readonly arrives: boolean }
  | { readonly _tag: "Acknowledge"; readonly late: boolean }
  | { readonly _tag: "Resume" }
  | { readonly _tag: "Resend" }
const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
  FastCheck.constant({ _tag: "Launch" } as const),
  FastCheck.constant({ _tag: "Launch" } as const),
  FastCheck.boolean().map((arrives) => ({ _tag: "Send", arrives }) as const),
  FastCheck.boolean().map((late) => ({ _tag: "Acknowledge", late }) as const),
  FastCheck.constantFrom({ _tag: "Resume" } as const, { _tag: "Resend" } as const)
)

describe("Outbox", () => {
  it.prop(
    "delivers every launch once and in order, whatever is lost, resent or acknowledged late",
    [FastCheck.array(step, { maxLength: 80 })],
    ([steps]) => {
      const outbox = Outbox.make({ limit: 1000 })
      const isNew = ReplayWindow.make()
      const delivered: Array<number> = []
      let count = 0
      let highest = -1
      // After a loss everything is lost until the next connection.
      let whole = true
      const send = (arrives: boolean) => {
        whole &&= arrives
        for (const sent of outbox.take(0)) {
          if (!whole || sent.number === undefined || !isNew(sent.number)) continue
          highest = sent.number
          delivered.push(portOf(sent))
        }
      }
      for (const { _tag, ...rest } of [...steps, { _tag: "Resume" } as const]) {
        if (_tag === "Launch") outbox.launch(launch(count++), never)
        else if (_tag === "Acknowledge") outbox.acknowledge(highest, "late" in rest && rest.late ? 1 : 0)
        else if (_tag === "Resend") outbox.resendBefore(1)
        else if (_tag === "Resume") {
          whole = true
          outbox.acknowledge(highest)
          outbox.resendAll()
        } else send("arrives" in rest && rest.arrives)
      }
      for (let round = 0; round < 3; round++) send(true)
      outbox.acknowledge(highest)
      assert.deepStrictEqual(
        delivered,
        Array.from({ length: count }, (_, port) => port)
      )
      assert.strictEqual(outbox.size(), 0)
    }
  )

  it("sends liveness before a thousand launches, and the state of the pool before unsent launches", () => {
    const outbox = Outbox.make({ limit: 10_000 })
    for (let port = 0; port < 1000; port++) outbox.launch(launch(port), never)
    assert.lengthOf(outbox.take(0), Outbox.maxBatch)
    outbox.putOnce("Ping")
    outbox.put(new Signal.Keep({ count: 1 }))
    outbox.put(new Signal.Flush())
    outbox.put(new Signal.Keep({ count: 2 }))
    const next = outbox.take(0)
    assert.deepStrictEqual(tags(next).slice(0, 4), ["Ping", "Flush", "Keep", "Launch"])
    assert.deepInclude(next[2]?.signal, { count: 2 })
    assert.deepStrictEqual(
      next.slice(1).map(({ number }) => number),
      Array.from({ length: Outbox.maxBatch - 1 }, (_, index) => Outbox.maxBatch + index)
    )
  })

  it("sends an acknowledgement in a line of its own only when there is no other line", () => {
    const outbox = Outbox.make({ limit: 10 })
    outbox.putOnce("Ack")
    outbox.putOnce("Ping")
    assert.deepStrictEqual(tags(outbox.take(0)), ["Ping"])
    outbox.putOnce("Ack")
    assert.deepStrictEqual(tags(outbox.take(0)), ["Ack"])
    assert.deepStrictEqual(outbox.take(0), [])
  })

  it("gives up launches that are due, sent or not, and does not resend them; the others keep their numbers", () => {
    const outbox = Outbox.make({ limit: 10 })
    const refused: Array<string> = []
    const until = (port: number, due: number) =>
      outbox.launch(launch(port), { due, giveUp: (why) => refused.push(`${port} ${why}`) })
    until(0, 10)
    until(1, 20)
    outbox.take(0)
    outbox.put(new Signal.Flush())
    outbox.take(0)
    until(2, 30)
    outbox.expire(10)
    outbox.resendAll()
    const batch = outbox.take(11)
    assert.deepStrictEqual(
      [batch.map(({ number }) => number), tags(batch), refused],
      [[1, 2, 3], ["Launch", "Flush", "Launch"], ["0 Late"]]
    )
    until(3, 40)
    outbox.expire(30)
    outbox.close({ sent: false })
    assert.deepStrictEqual(refused, ["0 Late", "1 Late", "2 Late", "3 Over"])
  })

  it("neither resends nor gives up a launch that was withdrawn", () => {
    const outbox = Outbox.make({ limit: 10 })
    const [sent, unsent] = [outbox.launch(launch(0), never), launch(1)]
    outbox.take(0)
    outbox.withdraw(sent)
    outbox.withdraw(outbox.launch(unsent, never))
    outbox.resendAll()
    assert.deepStrictEqual(outbox.take(0), [])
    outbox.close({ sent: true })
    assert.strictEqual(outbox.size(), 0)
  })

  it("waits until launches fill a batch, for a slow peer that has not acknowledged many, and for no other peer", () => {
    const outbox = Outbox.make({ limit: 1000 })
    let port = 0
    const sendOne = () => {
      outbox.launch(launch(port++), never)
      return outbox.take(port).length
    }
    const inTime = Array.from({ length: 50 }, sendOne)
    outbox.acknowledge(0, 1)
    inTime.push(...Array.from({ length: 50 }, sendOne))
    assert.deepStrictEqual(new Set(inTime), new Set([1]))
    // The second was sent at 2.
    outbox.acknowledge(1, 3)
    assert.deepStrictEqual([sendOne(), sendOne()], [0, 0])
    for (const kind of ["Ping", "Ack"] as const) {
      outbox.launch(launch(port++), never)
      outbox.putOnce(kind)
      assert.isAbove(outbox.take(port).filter(({ signal }) => signal._tag === "Launch").length, 0)
    }
    const gathered = Array.from({ length: Outbox.maxBatch }, sendOne)
    assert.deepStrictEqual(
      gathered.filter((count) => count > 0),
      [Outbox.maxBatch]
    )
    sendOne()
    // Those that were not acknowledged are few: the next waits for nothing.
    outbox.acknowledge(port - 2, 3)
    assert.lengthOf(outbox.take(port), 1)
    assert.strictEqual(outbox.size(), 1)
  })

  it("holds no more launches than its limit, and has no more in flight than stated", () => {
    const outbox = Outbox.make({ limit: 2000 })
    let port = 0
    while (outbox.hasRoom()) outbox.launch(launch(port++), never)
    let sent = 0
    for (let batch = outbox.take(0); batch.length > 0; batch = outbox.take(0)) sent += batch.length
    assert.deepStrictEqual([port, sent], [2000, Outbox.maxInFlight])
    outbox.acknowledge(9)
    assert.lengthOf(outbox.take(0), 10)
  })
})

describe("ReplayWindow", () => {
  it.prop(
    "accepts a number once, whatever the order",
    [FastCheck.array(FastCheck.nat(500)), FastCheck.nat(20)],
    ([numbers, from]) => {
      const isNew = ReplayWindow.make(from)
      const seen = new Set<number>()
      for (const n of numbers) {
        assert.strictEqual(isNew(n), n >= from && !seen.has(n))
        seen.add(n)
      }
    }
  )

  it.prop(
    "remembers as a set does, also when numbers leap",
    [FastCheck.array(FastCheck.tuple(FastCheck.nat(3 * ReplayWindow.window), FastCheck.nat(8)))],
    ([leaps]) => {
      const isNew = ReplayWindow.make()
      const seen = new Set<number>()
      let highest = -1
      for (const [leap, back] of leaps) {
        // Around the highest, around the lowest that is remembered, and far above.
        for (const n of [highest + 1 + leap, highest - back, highest - ReplayWindow.window + 4 - back]) {
          if (n < 0) continue
          assert.strictEqual(isNew(n), n > highest - ReplayWindow.window && !seen.has(n))
          seen.add(n)
          highest = Math.max(highest, n)
        }
      }
    },
    { fastCheck: { numRuns: 40 } }
  )

  it("takes no more memory, whatever it has seen", () => {
    const windows = Array.from({ length: 8 }, () => ReplayWindow.make())
    const before = v8.getHeapStatistics().used_heap_size
    for (const isNew of windows) for (let n = 0; n < ReplayWindow.window; n++) isNew(n)
    // As sets they took 12 MiB.
    assert.isBelow(v8.getHeapStatistics().used_heap_size - before, 2 ** 22)
    assert.isFalse(windows.some((isNew) => isNew(0)))
  })

  it("treats a number too far below the highest as seen", () => {
    const isNew = ReplayWindow.make()
    assert.isTrue(isNew(ReplayWindow.window + 5))
    assert.deepStrictEqual([isNew(5), isNew(6), isNew(6)], [false, true, false])
  })
})
