import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as DatagramFrame from "../../src/wire/DatagramFrame.js"
import { maxDatagramBytes } from "../../src/transport/Transport.js"

const datagrams = FastCheck.array(FastCheck.uint8Array({ maxLength: 300 }), { maxLength: 100 })

const textsOf = (datagrams: ReadonlyArray<Uint8Array>) => datagrams.map((bytes) => Buffer.from(bytes).toString("hex"))

/** Each datagram in a frame of its own. */
const framesOf = (datagrams: ReadonlyArray<Uint8Array>) => {
  const encoder = DatagramFrame.makeEncoder()
  return datagrams.map((bytes) => encoder.encode([bytes]))
}

describe("DatagramFrame", () => {
  it.prop(
    "decodes the encoded datagrams, whatever the sizes of chunks",
    [datagrams, FastCheck.array(FastCheck.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 9 })],
    ([datagrams, cuts]) => {
      const bytes = DatagramFrame.makeEncoder().encode(datagrams)
      const decoder = DatagramFrame.makeDecoder()
      const out: Array<Uint8Array> = []
      for (let at = 0, turn = 0; at < bytes.length; turn++) {
        const length = cuts[turn % cuts.length] ?? 1
        out.push(...decoder.push(bytes.subarray(at, at + length)))
        at += length
      }
      assert.deepStrictEqual(textsOf(out), textsOf(datagrams))
    }
  )

  it("keeps the boundaries of empty and of the largest datagrams", () => {
    const sizes = [0, maxDatagramBytes, 0, 0, 65_535, 1]
    const bytes = DatagramFrame.makeEncoder().encode(sizes.map((size) => new Uint8Array(size).fill(7)))
    const out = DatagramFrame.makeDecoder().push(bytes)
    assert.deepStrictEqual(
      out.map(({ length }) => length),
      sizes
    )
  })

  it.prop(
    "ignores repeated datagrams and puts late ones in order",
    [datagrams, FastCheck.infiniteStream(FastCheck.nat(40)), FastCheck.infiniteStream(FastCheck.boolean())],
    ([datagrams, delays, twice]) => {
      const sent = framesOf(datagrams).flatMap((frame, index) => {
        const one = { at: index + Number(delays.next().value), frame }
        return twice.next().value === true ? [one, { at: index + Number(delays.next().value), frame }] : [one]
      })
      const decoder = DatagramFrame.makeDecoder()
      const out = sent.toSorted((left, right) => left.at - right.at).flatMap(({ frame }) => decoder.push(frame))
      assert.deepStrictEqual(textsOf(out), textsOf(datagrams))
    }
  )

  it.prop("waits for a missing datagram until the window is full", [FastCheck.nat(50)], ([missing]) => {
    const all = Array.from({ length: 200 }, (_, index) => new Uint8Array([index]))
    const decoder = DatagramFrame.makeDecoder()
    const out = framesOf(all)
      .filter((_, index) => index !== missing)
      .flatMap((frame) => decoder.push(frame))
    assert.deepStrictEqual(
      out.map(([index]) => index),
      all.flatMap((_, index) => (index === missing ? [] : [index]))
    )
  })

  it("continues when numbers wrap around", () => {
    const frame = (number: number, byte: number) => {
      const bytes = new Uint8Array([0, 1, 0, 0, 0, 0, byte])
      new DataView(bytes.buffer).setUint32(2, number)
      return bytes
    }
    const decoder = DatagramFrame.makeDecoder()
    for (const number of [0x60000000, 0xb0000000, 0xffffff00]) decoder.push(frame(number, 0))
    for (let number = 0xffffff00 - 63; number < 0xffffffff; number++) decoder.push(frame(number, 0))
    const out = [0xffffffff, 1, 0, 0xffffffff].flatMap((number, index) => decoder.push(frame(number, index)))
    assert.deepStrictEqual(
      out.map(([byte]) => byte),
      [0, 2, 1]
    )
  })
})
