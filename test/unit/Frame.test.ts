import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Frame from "../../src/wire/Frame.js"

const message = FastCheck.uint8Array({ maxLength: 300 })
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
    "decodes the encoded messages, whatever the sizes of chunks",
    [FastCheck.array(message), sizes],
    ([messages, sizes]) => {
      const decoder = Frame.makeDecoder({ limit: 300 })
      const bytes = Frame.concat(messages.map(Frame.message))
      const decoded = pieces(bytes, sizes).flatMap((piece) => Either.getOrThrow(decoder.push(piece)))
      assert.deepStrictEqual(
        decoded.map((each) => Array.from(each)),
        messages.map((each) => Array.from(each))
      )
    }
  )

  it.prop(
    "refuses a message longer than the limit by its length, before it arrives",
    [FastCheck.integer({ min: 1, max: 65_534 })],
    ([limit]) => {
      const bytes = Frame.message(new Uint8Array(limit + 1)).subarray(0, Frame.headerLength)
      assert.isTrue(Either.isLeft(Frame.makeDecoder({ limit }).push(bytes)))
    }
  )

  it.prop("accepts a message of exactly the limit", [FastCheck.integer({ min: 1, max: 4000 })], ([limit]) => {
    const decoder = Frame.makeDecoder({ limit })
    assert.isTrue(Either.isRight(decoder.push(Frame.message(new Uint8Array(limit)))))
  })

  it.prop(
    "splits lines as they were encoded",
    [FastCheck.array(FastCheck.stringMatching(/^[ -~]{0,60}$/))],
    ([lines]) => {
      const found: Array<string> = []
      let rest = Frame.encode(lines)
      for (let cut = Frame.split(rest); cut !== undefined; cut = Frame.split(rest)) {
        found.push(Frame.toText(cut[0]))
        rest = cut[1]
      }
      assert.deepStrictEqual([found, rest.length], [lines, 0])
    }
  )
})
