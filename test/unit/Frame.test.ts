import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Frame from "../../src/wire/Frame.js"

const text = FastCheck.stringMatching(/^[ -~]{0,60}$/)
const cuts = FastCheck.array(FastCheck.integer({ min: 1, max: 9 }), { minLength: 1 })

const pieces = (bytes: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const out: Array<Uint8Array> = []
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = cuts[turn % cuts.length] ?? 1
    out.push(bytes.subarray(at, at + length))
    at += length
  }
  return out
}

describe("Frame", () => {
  it.prop("lines survive any cutting", [FastCheck.array(text), cuts], ([lines, cuts]) => {
    const decoder = Frame.makeDecoder({ limit: 64 })
    const got = pieces(Frame.encode(lines), cuts).flatMap((piece) => Either.getOrThrow(decoder.push(piece)))
    assert.deepStrictEqual(got.map(Frame.toText), lines)
  })

  it.prop(
    "a line longer than the limit is refused, whether or not it ends",
    [FastCheck.integer({ min: 1, max: 40 }), cuts, FastCheck.boolean()],
    ([limit, cuts, ends]) => {
      const decoder = Frame.makeDecoder({ limit })
      const bytes = new Uint8Array(limit + 1).fill(0x61)
      const results = pieces(ends ? Frame.concat([bytes, new Uint8Array([10])]) : bytes, cuts).map(decoder.push)
      assert.isTrue(results.some(Either.isLeft))
    }
  )

  it.prop("holds no more than the limit and a chunk", [FastCheck.integer({ min: 1, max: 40 })], ([limit]) => {
    const decoder = Frame.makeDecoder({ limit })
    assert.isTrue(Either.isRight(decoder.push(new Uint8Array(limit).fill(0x61))))
  })
})
