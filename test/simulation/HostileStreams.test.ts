import { assert, describe } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { maxCarriers } from "../../src/stream/Multiplexer.js"
import * as StreamFrame from "../../src/stream/StreamFrame.js"
import { firstWindow, maxWindow } from "../../src/stream/VisitorStream.js"
import { maxGrownBytes } from "../../src/stream/StreamPump.js"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import { encode, Forger, type Frame, number, Wire } from "./streams/Forger.js"

const { types } = StreamFrame
const none: Uint8Array = new Uint8Array(0)
const open = (stream: number, payload = none): Frame => ({ type: types.open, stream, payload })
const data = (stream: number, bytes: number): Frame => ({ type: types.data, stream, payload: new Uint8Array(bytes) })
const credit = (stream: number, bytes: number): Frame => ({ type: types.credit, stream, payload: number(bytes, 4) })
const frame = (type: number, stream: number, payload = none): Frame => ({ type, stream, payload })

/** A stream's worth of data, in frames. */
const flood = (stream: number, bytes: number, each = StreamFrame.maxDataBytes): ReadonlyArray<Frame> =>
  Array.from({ length: Math.floor(bytes / each) }, () => data(stream, each))

// Frames that may be right, and bytes that are not

const nearStream = FastCheck.oneof(FastCheck.nat(4), FastCheck.integer({ min: 0, max: StreamFrame.maxStream }))
const offset = FastCheck.oneof(FastCheck.nat(200), FastCheck.integer({ min: 0, max: 2 ** 48 - 1 }))
const likely: FastCheck.Arbitrary<Uint8Array> = FastCheck.oneof(
  FastCheck.tuple(nearStream, FastCheck.uint8Array({ maxLength: 20 })).map(([id, payload]) => open(id, payload)),
  FastCheck.tuple(nearStream, FastCheck.oneof(FastCheck.integer({ min: 1, max: 9 }), FastCheck.constant(8000))).map(
    ([id, size]) => data(id, size)
  ),
  nearStream.map((id) => frame(types.end, id)),
  FastCheck.tuple(nearStream, FastCheck.nat(255)).map(([id, code]) => frame(types.reset, id, number(code, 1))),
  FastCheck.tuple(nearStream, FastCheck.oneof(FastCheck.nat(1000), FastCheck.nat())).map(([id, size]) =>
    credit(id, size)
  ),
  FastCheck.tuple(nearStream, FastCheck.nat(4), offset).map(([id, pool, at]) =>
    frame(types.move, id, Uint8Array.from([...number(pool, 4), ...number(at, 6)]))
  ),
  FastCheck.tuple(nearStream, offset).map(([id, at]) => frame(types.moved, id, number(at, 6))),
  nearStream.map((id) => frame(types.stay, id)),
  offset.map((at) => frame(types.ack, 0, number(at, 6)))
).map((frame) => encode(frame))
const mutated = FastCheck.tuple(likely, FastCheck.nat(12), FastCheck.nat(255)).map(([bytes, at, byte]) => {
  const copy = bytes.slice()
  if (at < copy.length) copy[at] = byte
  return copy
})
const hostile = FastCheck.array(
  FastCheck.oneof({ weight: 8, arbitrary: likely }, mutated, FastCheck.uint8Array({ maxLength: 40 })),
  { maxLength: 30, size: "max" }
)

describe("HostileStreams", () => {
  it.drawn(
    "whatever a peer sends ends the carrier that it came on at most, once, and the others go on",
    FastCheck.tuple(FastCheck.constantFrom("local" as const, "remote" as const), hostile),
    runs(300, 100_000),
    ([visitors, pieces]) => {
      const forger = new Forger({ visitors })
      const other = forger.attach(2)
      const wire = forger.attach(1)
      if (visitors === "local") for (let count = 0; count < 4; count++) forger.visit(6000)
      forger.turn()
      for (const [at, piece] of pieces.entries()) {
        if (!wire.isOver) wire.send(piece)
        if (at % 3 === 0) forger.turn()
        if (at % 10 === 9) forger.sweep()
        assert.isAtMost(forger.keptBytes(), 2_000_000)
      }
      forger.turn()
      assert.isAtMost(forger.failures.length, 1)
      assert.strictEqual(forger.carrier(1).state === "Over", forger.failures.length === 1)
      assert.strictEqual(forger.carrier(2).state, "Attached")
      const before = forger.multiplexer.counts().opened
      if (visitors === "local") forger.visit(1)
      else other.send(encode(open(1000), data(1000, 1)))
      forger.turn()
      assert.strictEqual(forger.multiplexer.counts().opened, before + 1)
      forger.multiplexer.resetAll()
      assert.deepInclude(forger.multiplexer.counts(), { streams: 0, pendingBytes: 0, grownBytes: 0 })
    }
  )

  /** Frames that end the carrier: with streams 1 and 2 open on it, and 3 on another. */
  it.each([
    ["an ack frame for what was not sent", "remote", [frame(types.ack, 0, number(1_000_000, 6))]],
    ["an attach frame among others", "remote", [frame(types.attach, 1, new Uint8Array(10))]],
    ["an open frame for a stream that is open", "remote", [open(1)]],
    ["an open frame for stream 0", "remote", [open(0)]],
    ["an open frame from the side of the targets", "local", [open(9)]],
    ["data beyond the window", "remote", flood(2, firstWindow + StreamFrame.maxDataBytes)],
    ["data after the end", "remote", [frame(types.end, 1), data(1, 1)]],
    ["a second end", "remote", [frame(types.end, 2), frame(types.end, 2)]],
    ["credit beyond the largest window", "remote", [credit(1, maxWindow)]],
    ["credit beyond all numbers", "remote", [credit(1, 0xffff_ffff)]],
    ["a frame of a stream on another carrier", "remote", [frame(types.end, 3)]],
    ["data of a stream on another carrier", "remote", [data(3, 1)]],
    [
      "a move at another offset",
      "remote",
      [frame(types.move, 1, Uint8Array.from([...number(2, 4), ...number(77, 6)]))]
    ],
    ["a move from the side of the targets", "local", [frame(types.move, 1, new Uint8Array(10))]],
    ["an answer to no move", "local", [frame(types.moved, 1, number(0, 6))]],
    ["a refusal of no move", "local", [frame(types.stay, 1)]]
  ] as const)("%s ends its carrier, and its streams, with one failure", (_, visitors, frames) => {
    const forger = new Forger({ visitors })
    forger.takes = "Nothing"
    const [first, second] = [forger.attach(1), forger.attach(2)]
    if (visitors === "remote") {
      first.send(encode(open(1), open(2)))
      second.send(encode(open(3)))
    } else for (let count = 0; count < 4; count++) forger.visit(0)
    forger.turn()
    const { streams } = forger.carrier(1)
    first.send(encode(...frames))
    forger.turn()
    assert.strictEqual(forger.failures.length, 1)
    assert.strictEqual(forger.carrier(1).state, "Over")
    assert.strictEqual(forger.results.length, streams)
    assert.strictEqual(forger.carrier(2).state, "Attached")
    assert.strictEqual(forger.multiplexer.counts().streams, forger.carrier(2).streams)
    assert.isFalse(second.isOver)
  })

  it.each([
    ["another frame", encode(open(1), open(2), open(3))],
    ["another carrier", StreamFrame.encodeAttach({ carrier: 2, attempt: 1, received: 0 })],
    ["another attempt", StreamFrame.encodeAttach({ carrier: 1, attempt: 2, received: 0 })],
    ["an offset that was not sent", StreamFrame.encodeAttach({ carrier: 1, attempt: 1, received: 1 })],
    ["the end of the carrier", StreamFrame.encodeAttach({ carrier: 1, attempt: 1, received: undefined })]
  ])("a carrier whose first frame is %s ends", (_, first) => {
    const forger = new Forger({ visitors: "remote" })
    const wire = forger.attach(1, 1, first)
    assert.isTrue(wire.isOver)
    assert.strictEqual(forger.failures.length, 1)
    assert.strictEqual(forger.multiplexer.counts().streams, 0)
  })

  it("frames of streams that are not open are ignored", () => {
    const forger = new Forger({ visitors: "remote" })
    const wire = forger.attach(1)
    const all = [data(7, 100), credit(7, 0xffff_ffff), ...[types.end, types.stay].map((type) => frame(type, 7))]
    for (let count = 0; count < 100; count++) wire.send(encode(...all))
    forger.turn()
    assert.deepStrictEqual(forger.failures, [])
    assert.strictEqual(forger.keptBytes(), 0)
    forger.sweep()
    assert.strictEqual(forger.keptBytes(), 14, "an ack frame, and nothing more")
  })

  it.each([0, 18])("a flood of opens from a peer that reads %s bytes is refused, and ends its carrier", (room) => {
    const forger = new Forger({ visitors: "remote" })
    const wire = new Wire()
    wire.room = room
    wire.send(StreamFrame.encodeAttach({ carrier: 1, attempt: 1, received: 0 }))
    forger.multiplexer.attach(1, 1, wire)
    let most = 0
    const opens = encode(...Array.from({ length: 50_000 }, () => open(0)))
    const view = new DataView(opens.buffer)
    for (let id = 1; !wire.isOver && id < 2_000_000;) {
      for (let at = 0; at < opens.length; at += StreamFrame.headerBytes) view.setUint32(at + 4, id++)
      wire.send(opens)
      forger.turn()
      assert.isAtMost(forger.multiplexer.counts().streams, 100)
      most = Math.max(most, forger.keptBytes())
    }
    assert.strictEqual(forger.failures.length, 1)
    assert.isAtMost(most, 6 * 1024 * 1024)
    assert.strictEqual(forger.multiplexer.counts().streams, 0)
  })

  it("data byte by byte for a target that reads nothing is kept up to the window", () => {
    const forger = new Forger({ visitors: "remote" })
    forger.takes = "Nothing"
    const wire = forger.attach(1)
    wire.send(encode(open(1), ...flood(1, firstWindow, 1)))
    forger.turn()
    assert.deepStrictEqual(forger.failures, [])
    assert.strictEqual(forger.multiplexer.counts().pendingBytes, firstWindow)
    wire.send(encode(data(1, 1)))
    assert.strictEqual(forger.failures.length, 1)
    assert.strictEqual(forger.multiplexer.counts().pendingBytes, 0)
  })

  it("a flood of attaches with new numbers leaves so many carriers and connections at most", () => {
    const forger = new Forger({ visitors: "remote" })
    const wires = Array.from({ length: 1000 }, (_, at) => forger.attach(at + 1, 1, none))
    assert.strictEqual(forger.multiplexer.carriers.size, maxCarriers)
    assert.strictEqual(wires.filter(({ isOver }) => !isOver).length, 2 * maxCarriers)
    // They say nothing, so they are given up.
    for (let count = 0; count < 10; count++) forger.sweep()
    assert.strictEqual(wires.filter(({ isOver }) => !isOver).length, 0)
  })

  it("a flood of attaches to one carrier leaves the last connection", () => {
    const forger = new Forger({ visitors: "remote" })
    const wires = Array.from({ length: 1000 }, (_, at) => forger.attach(1, at + 1))
    assert.deepStrictEqual(forger.failures, [])
    assert.strictEqual(wires.filter(({ isOver }) => !isOver).length, 1)
    assert.isFalse(wires.at(-1)?.isOver)
  })

  it("carriers that a peer begins and breaks one after another leave nothing", () => {
    const forger = new Forger({ visitors: "remote" })
    for (let carrier = 1; carrier <= 1000; carrier++) {
      const wire = forger.attach(carrier)
      wire.send(encode(open(carrier), open(carrier)))
      forger.turn()
      assert.isTrue(wire.isOver)
    }
    assert.strictEqual(forger.failures.length, 1000)
    assert.strictEqual(forger.multiplexer.carriers.size, 0)
    assert.strictEqual(forger.multiplexer.counts().streams, 0)
  })

  it.each(["reads nothing", "acknowledges nothing"])(
    "a peer that %s is given up, and keeps a bounded amount",
    (how) => {
      const forger = new Forger({ visitors: "local", takePooled: undefined })
      const wire = forger.attach(1)
      if (how === "reads nothing") wire.room = 0
      for (let count = 0; count < 40; count++) forger.visit(firstWindow)
      forger.turn(10_000)
      assert.isAtMost(forger.keptBytes(), 1024 * 1024 + 64 * 1024)
      for (let count = 0; count < 6; count++) forger.sweep()
      assert.deepStrictEqual(forger.lost, [1])
      assert.isTrue(wire.isOver)
    }
  )

  it("visitors are refused once too much waits for a peer that is away", () => {
    const forger = new Forger({ visitors: "local" })
    const wire = forger.attach(1)
    wire.room = 0
    const open = () => forger.multiplexer.open(forger.connection(), new Uint8Array(500), forger.listener)
    let opened = 0
    for (let stream = open(); stream !== undefined; stream = open()) {
      opened++
      forger.multiplexer.reset(stream)
    }
    assert.isBelow(opened, 10_000)
    assert.isAtMost(forger.keptBytes(), 4 * 1024 * 1024)
  })

  it("all windows together grow by 64 MiB at most", () => {
    const forger = new Forger({ visitors: "remote" })
    forger.takes = "All"
    const wire = forger.attach(1)
    for (let id = 1; id <= 90; id++) {
      wire.send(encode(open(id)))
      // What the first window allows, then what its credit allows.
      for (let window = firstWindow; window <= maxWindow / 2; window *= 2) wire.send(encode(...flood(id, window / 2)))
    }
    assert.deepStrictEqual(forger.failures, [])
    const { grownBytes } = forger.multiplexer.counts()
    assert.isAtMost(grownBytes, maxGrownBytes)
    assert.isAbove(grownBytes, maxGrownBytes - maxWindow)
    forger.multiplexer.resetAll()
    assert.strictEqual(forger.multiplexer.counts().grownBytes, 0)
  })

  it("a carrier may be attached while another is read", () => {
    let opened = 0
    const forger = new Forger({
      visitors: "remote",
      opened: (stream) => {
        stream.listener = forger.listener
        if (++opened > 1) return
        const wire = new Wire()
        wire.send(StreamFrame.encodeAttach({ carrier: 2, attempt: 1, received: 0 }))
        wire.send(encode(open(7), open(8), open(9)))
        forger.multiplexer.attach(2, 1, wire)
      }
    })
    forger.attach(1).send(encode(open(1), open(2), open(3)))
    forger.turn()
    assert.deepStrictEqual(forger.failures, [])
    assert.strictEqual(opened, 6)
  })

  it("a listener may end the carrier whose frames are read, and nothing more is read of it", () => {
    const forger = new Forger({
      visitors: "remote",
      opened: (stream) => forger.multiplexer.endCarrier(stream.carrier, StreamFrame.resets.stopped)
    })
    forger.attach(1).send(encode(open(1), open(2), data(2, 5)))
    forger.turn()
    assert.deepInclude(forger.multiplexer.counts(), { opened: 1, streams: 0, pendingBytes: 0 })
    assert.deepStrictEqual(forger.failures, [])
  })

  it.each(["credit", "room", "the answer to a move"])(
    "a visitor's reset is noticed while its stream waits for %s",
    (what) => {
      const takePooled = what === "the answer to a move" ? { moveAfterBytes: 1 } : { moveAfterBytes: Infinity }
      const forger = new Forger({ visitors: "local", ...takePooled })
      const wire = forger.attach(1)
      wire.room = 0
      const visitors = what === "room" ? 40 : 1
      for (let count = 0; count < visitors; count++) forger.visit(2 * firstWindow)
      forger.turn()
      assert.strictEqual(forger.multiplexer.counts().streams, visitors)
      for (const connection of forger.connections) connection.break()
      assert.strictEqual(forger.multiplexer.counts().streams, 0)
      assert.deepStrictEqual(
        forger.results,
        Array.from({ length: visitors }, () => ({ _tag: "Reset", by: "us", code: StreamFrame.resets.broken }))
      )
    }
  )

  it("a silent stream is reset once the limit has passed", () => {
    const forger = new Forger({ visitors: "local", idleMillis: 1000 })
    forger.attach(1)
    forger.visit(0)
    forger.sweep()
    forger.sweep(500)
    assert.deepStrictEqual(forger.results, [])
    forger.sweep(700)
    assert.deepStrictEqual(forger.results, [{ _tag: "Reset", by: "us", code: StreamFrame.resets.idle }])
  })

  it("a visitor beyond the most streams is refused, and its connection is the caller's", () => {
    const forger = new Forger({ visitors: "local", maxStreams: 2 })
    assert.isUndefined(forger.visit(0), "no carrier")
    forger.attach(1)
    assert.isDefined(forger.visit(0))
    assert.isDefined(forger.visit(0))
    assert.isUndefined(forger.visit(0))
    assert.isFalse(forger.connections.at(-1)?.isOver)
  })
})
