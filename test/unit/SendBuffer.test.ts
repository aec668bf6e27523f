import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as SendBuffer from "../../src/stream/SendBuffer.js"
import * as StreamFrame from "../../src/stream/StreamFrame.js"
import type { Connection } from "../../src/transport/NonBlocking.js"
import { broken, nothing } from "../../src/transport/NonBlocking.js"

/** Takes as many bytes as it is told, and remembers them. */
const sink = () => {
  const taken: Array<number> = []
  let room = 0
  const connection: Connection = {
    read: () => nothing,
    write: (bytes, at, size) => {
      if (room < 0) return broken
      const count = Math.min(size, room)
      room -= count
      for (const byte of bytes.subarray(at, at + count)) taken.push(byte)
      return count
    },
    shutdown: () => {},
    close: () => {},
    reset: () => {},
    setOwner: () => {}
  }
  return { connection, taken, give: (bytes: number) => (room = bytes) }
}

const byteAt = (offset: number) => (offset * 7 + (offset >> 8)) & 255

const add = (buffer: SendBuffer.SendBuffer, bytes: number) => {
  const segment = buffer.room(bytes)
  for (let at = 0; at < bytes; at++) segment.bytes[segment.used + at] = byteAt(buffer.end + at)
  buffer.commit(segment, bytes)
}

type Step =
  | { readonly _tag: "Add"; readonly bytes: number }
  | { readonly _tag: "Flush"; readonly bytes: number }
  | { readonly _tag: "Acknowledge"; readonly share: number }
  | { readonly _tag: "Rewind"; readonly share: number }

const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
  FastCheck.record({
    _tag: FastCheck.constantFrom("Add" as const, "Flush" as const),
    bytes: FastCheck.integer({ min: 1, max: 16_392 })
  }),
  FastCheck.record({
    _tag: FastCheck.constantFrom("Acknowledge" as const, "Rewind" as const),
    share: FastCheck.double({ min: 0, max: 1, noNaN: true })
  })
)

describe("SendBuffer", () => {
  it.prop(
    "sends what was added, from where it is rewound to, and gives its memory back",
    [FastCheck.array(step, { maxLength: 40, size: "max" })],
    ([steps]) => {
      const before = SendBuffer.heldSegments()
      const buffer = new SendBuffer.SendBuffer()
      const { connection, give, taken } = sink()
      for (const step of steps) {
        if (step._tag === "Add") add(buffer, step.bytes)
        else if (step._tag === "Flush") {
          const [from, left] = [buffer.sent, buffer.unsent()]
          taken.length = 0
          give(step.bytes)
          assert.strictEqual(buffer.flush(connection), Math.max(0, left - step.bytes))
          assert.strictEqual(taken.length, Math.min(left, step.bytes))
          for (const [at, byte] of taken.entries()) if (byte !== byteAt(from + at)) assert.fail(`wrong at ${from + at}`)
        } else {
          const offset = buffer.acknowledged + Math.floor(step.share * (buffer.sent - buffer.acknowledged))
          if (step._tag === "Acknowledge") assert.isTrue(buffer.acknowledge(offset))
          else assert.isTrue(buffer.rewind(offset))
          assert.strictEqual(buffer.acknowledged, offset)
          if (step._tag === "Rewind") assert.strictEqual(buffer.sent, offset)
        }
        // A segment may have room for less than the next frame.
        const most = 2 + Math.ceil(buffer.unacknowledged() / (SendBuffer.segmentBytes - 16_392))
        assert.isAtMost(SendBuffer.heldSegments() - before, most)
      }
      if (buffer.acknowledged === buffer.end) assert.strictEqual(SendBuffer.heldSegments() - before, 1)
      buffer.free()
      assert.strictEqual(SendBuffer.heldSegments(), before)
    }
  )

  it("refuses what was not sent, and to go back behind what was acknowledged", () => {
    const buffer = new SendBuffer.SendBuffer()
    const { connection, give } = sink()
    add(buffer, 100)
    give(50)
    buffer.flush(connection)
    assert.isFalse(buffer.acknowledge(51))
    assert.isFalse(buffer.rewind(51))
    assert.isTrue(buffer.acknowledge(50))
    assert.isTrue(buffer.acknowledge(20), "an old one, sent again")
    assert.strictEqual(buffer.acknowledged, 50)
    assert.isFalse(buffer.rewind(49))
    buffer.free()
  })

  it("says that the connection is broken", () => {
    const buffer = new SendBuffer.SendBuffer()
    const { connection, give } = sink()
    add(buffer, 1)
    give(-1)
    assert.strictEqual(buffer.flush(connection), broken)
    buffer.free()
  })
})

describe("StreamFrame", () => {
  it.prop(
    "an offset beyond 48 bits is known by its lowest 48",
    [FastCheck.maxSafeNat(), FastCheck.integer({ min: -(2 ** 30), max: 2 ** 30 })],
    ([base, distance]) => {
      const offset = Math.max(0, base + distance)
      FastCheck.pre(Number.isSafeInteger(offset))
      const view = new DataView(new ArrayBuffer(6))
      StreamFrame.setUint48(view, 0, offset)
      assert.strictEqual(StreamFrame.getUint48(view, 0), offset % 2 ** 48)
      assert.strictEqual(StreamFrame.nextTo(base, StreamFrame.getUint48(view, 0)), offset)
    }
  )

  it.prop(
    "an attach frame says what it was made of",
    [
      FastCheck.record({
        carrier: FastCheck.integer({ min: 0, max: 0xffff_ffff }),
        attempt: FastCheck.integer({ min: 0, max: 0xffff_ffff }),
        received: FastCheck.option(FastCheck.integer({ min: 0, max: 2 ** 48 - 1 }), { nil: undefined })
      })
    ],
    ([attach]) => {
      const bytes = StreamFrame.encodeAttach(attach)
      assert.strictEqual(bytes.length, StreamFrame.attachBytes)
      assert.deepStrictEqual(StreamFrame.decodeAttach(bytes), attach)
    }
  )
})
