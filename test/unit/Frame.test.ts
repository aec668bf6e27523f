import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Frame from "../../src/wire/Frame.js"

const text = FastCheck.stringMatching(/^[ -~]{0,60}$/)
const sizes = FastCheck.array(FastCheck.integer({ min: 1, max: 9 }), { minLength: 1 })

const pieces = (bytes: Uint8Array, sizes: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const out: Array<Uint8Array> = []
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = sizes[turn % sizes.length] ?? 1
    out.push(bytes.subarray(at, at + length))
    at += length
  }
  return out
}

describe("Frame", () => {
  it.prop(
    "decodes the encoded lines, whatever the sizes of chunks",
    [FastCheck.array(text), sizes],
    ([lines, sizes]) => {
      const decoder = Frame.makeDecoder({ limit: 64 })
      const decoded = pieces(Frame.encode(lines), sizes).flatMap((piece) => Either.getOrThrow(decoder.push(piece)))
      assert.deepStrictEqual(decoded.map(Frame.toText), lines)
    }
  )

  it.prop(
    "refuses a line longer than the limit, whether or not it ends",
    [FastCheck.integer({ min: 1, max: 40 }), sizes, FastCheck.boolean()],
    ([limit, sizes, ends]) => {
      const decoder = Frame.makeDecoder({ limit })
      const bytes = new Uint8Array(limit + 1).fill(0x61)
      const results = pieces(ends ? Frame.concat([bytes, new Uint8Array([10])]) : bytes, sizes).map(decoder.push)
      assert.isTrue(results.some(Either.isLeft))
    }
  )

  it.prop("accepts a line of exactly the limit", [FastCheck.integer({ min: 1, max: 40 })], ([limit]) => {
    const decoder = Frame.makeDecoder({ limit })
    assert.isTrue(Either.isRight(decoder.push(new Uint8Array(limit).fill(0x61))))
  })
})
