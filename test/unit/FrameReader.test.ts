import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { FrameReader } from "../../src/stream/FrameReader.js"
import * as StreamFrame from "../../src/stream/StreamFrame.js"

interface Frame {
  readonly type: number
  readonly stream: number
  readonly payload: Uint8Array
}

const encode = (frames: ReadonlyArray<Frame>): Uint8Array => {
  const parts = frames.map(({ payload, stream, type }) => {
    const bytes = new Uint8Array(StreamFrame.headerBytes + payload.length)
    StreamFrame.setHeader(new DataView(bytes.buffer), 0, type, payload.length, stream)
    bytes.set(payload, StreamFrame.headerBytes)
    return bytes
  })
  return Uint8Array.from(parts.flatMap((part) => [...part]))
}

/** Reads the bytes in pieces that end at these places. Returns what came, the parts of a `data` frame as one, or the problem. */
const read = (bytes: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<string> => {
  const found: Array<string> = []
  let data = ""
  const flush = () => {
    if (data !== "") found.push(data)
    data = ""
  }
  const reader = new FrameReader({
    data: (stream, from, at, size) => {
      assert.isAbove(size, 0)
      if (!data.startsWith(`data ${stream} `)) {
        flush()
        data = `data ${stream} `
      }
      data += Buffer.from(from.subarray(at, at + size)).toString("hex")
      return undefined
    },
    control: (type, stream, view, at, size) => {
      flush()
      const payload = Buffer.from(view.buffer, view.byteOffset + at, size).toString("hex")
      found.push(`${type} ${stream} ${payload}`)
      return undefined
    }
  })
  let from = 0
  for (const cut of [...cuts, bytes.length]) {
    const piece = bytes.slice(from, cut)
    from = cut
    const problem = reader.read(piece, new DataView(piece.buffer), piece.length)
    if (problem !== undefined) {
      flush()
      return [...found, `problem: ${problem}`]
    }
  }
  flush()
  return found
}

const payload = (min: number, max: number) => FastCheck.uint8Array({ minLength: min, maxLength: max })
const frame: FastCheck.Arbitrary<Frame> = FastCheck.oneof(
  FastCheck.record({
    type: FastCheck.constant(StreamFrame.types.data),
    stream: FastCheck.nat(3),
    payload: payload(1, 40)
  }),
  FastCheck.record({
    type: FastCheck.constant(StreamFrame.types.open),
    stream: FastCheck.nat(),
    payload: payload(0, StreamFrame.maxOpenBytes)
  }),
  ...Object.entries(StreamFrame.payloadBytes).map(([type, size]) =>
    FastCheck.record({
      type: FastCheck.constant(Number(type)),
      stream: FastCheck.integer({ min: 0, max: StreamFrame.maxStream }),
      payload: payload(size, size)
    })
  )
)

describe("FrameReader", () => {
  it.prop(
    "reads the same frames wherever the bytes are cut in two",
    [FastCheck.array(frame, { maxLength: 5 })],
    ([frames]) => {
      const bytes = encode(frames)
      const whole = read(bytes, [])
      for (let cut = 0; cut <= bytes.length; cut++) assert.deepStrictEqual(read(bytes, [cut]), whole)
    }
  )

  it.prop("reads the same frames byte by byte", [FastCheck.array(frame, { maxLength: 8 })], ([frames]) => {
    const bytes = encode(frames)
    const each = Array.from({ length: Math.max(0, bytes.length - 1) }, (_, at) => at + 1)
    assert.deepStrictEqual(read(bytes, each), read(bytes, []))
  })

  it.prop(
    "finds the same problem in wrong bytes, wherever they are cut",
    [FastCheck.array(frame, { maxLength: 3 }), FastCheck.uint8Array({ maxLength: 30 }), FastCheck.nat(600)],
    ([frames, wrong, cut]) => {
      const bytes = Uint8Array.from([...encode(frames), ...wrong])
      assert.deepStrictEqual(read(bytes, [Math.min(cut, bytes.length)]), read(bytes, []))
    }
  )

  it.each([
    { type: 0, size: 0, problem: "a frame of type 0" },
    { type: 10, size: 10, problem: "a frame of type 10" },
    { type: 255, size: 65_535, problem: "a frame of type 255" },
    { type: StreamFrame.types.data, size: 0, problem: "a data frame of 0 bytes" },
    { type: StreamFrame.types.data, size: StreamFrame.maxDataBytes + 1, problem: "a data frame of 16385 bytes" },
    { type: StreamFrame.types.open, size: StreamFrame.maxOpenBytes + 1, problem: "an open frame of 505 bytes" },
    { type: StreamFrame.types.credit, size: 3, problem: "a frame of type 5 of 3 bytes" },
    { type: StreamFrame.types.end, size: 1, problem: "a frame of type 3 of 1 bytes" }
  ])("refuses a frame of type $type with $size bytes by its header alone", ({ problem, size, type }) => {
    const bytes = new Uint8Array(StreamFrame.headerBytes)
    StreamFrame.setHeader(new DataView(bytes.buffer), 0, type, size, 1)
    assert.deepStrictEqual(read(bytes, []), [`problem: ${problem}`])
  })
})
