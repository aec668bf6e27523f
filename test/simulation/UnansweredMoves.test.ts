import { assert, describe, it } from "@effect/vitest"
import * as StreamFrame from "../../src/stream/StreamFrame.js"
import { encode, Forger, number } from "./streams/Forger.js"

const broken = { _tag: "Reset", by: "us", code: StreamFrame.resets.broken }

/** Two visitors, of whom the first is being moved, and what becomes of its pool connection. */
const moving = () => {
  const pooled = { taken: 0, reset: 0 }
  const forger = new Forger({
    visitors: "local",
    takePooled: () => ({ id: ++pooled.taken, pooled: { reset: () => void pooled.reset++ } })
  })
  const wire = forger.attach(1)
  const stream = forger.visit(6000)
  forger.visit(10)
  forger.turn()
  assert.deepStrictEqual([stream?.out, pooled.taken], ["Moving", 1])
  const acknowledge = () => {
    const { buffer } = forger.multiplexer.carrier(1)
    wire.send(encode({ type: StreamFrame.types.ack, stream: 0, payload: number(buffer.end, 6) }))
    forger.turn()
  }
  /** Lets so much time pass on a carrier that lives. */
  const live = (seconds: number) => {
    for (let quarter = 0; quarter < 4 * seconds; quarter++) {
      forger.sweep(250)
      acknowledge()
    }
  }
  return { acknowledge, forger, live, pooled, stream, wire }
}

describe("a move that is not answered", () => {
  it("ends its stream and no other, and gives back its pool connection", () => {
    const { acknowledge, forger, live, pooled } = moving()
    acknowledge()
    live(10)
    assert.deepStrictEqual([pooled.reset, forger.results], [0, []])
    live(10)
    assert.deepStrictEqual([pooled.reset, forger.results], [1, [broken]])
    assert.strictEqual(forger.multiplexer.counts().streams, 1)
    assert.deepStrictEqual(forger.failures, [])
    assert.strictEqual(forger.unanswered, 1)
  })

  it("may take its time while the other side has not acknowledged it, or the carrier is away", () => {
    const { acknowledge, forger, live, pooled, wire } = moving()
    acknowledge()
    live(10)
    wire.break()
    for (let second = 0; second < 25; second++) forger.sweep(1000)
    assert.deepStrictEqual([pooled.reset, forger.results], [0, []])
    const again = forger.attach(
      1,
      2,
      StreamFrame.encodeAttach({ carrier: 1, attempt: 2, received: forger.multiplexer.carrier(1).buffer.end })
    )
    forger.sweep()
    assert.deepStrictEqual([pooled.reset, forger.results], [0, []])
    again.send(encode({ type: StreamFrame.types.stay, stream: 1, payload: new Uint8Array(0) }))
    forger.turn()
    live(40)
    assert.deepStrictEqual([pooled.reset, forger.results, forger.unanswered], [1, [], 0])
  })
})
