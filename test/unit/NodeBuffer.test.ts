import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Net from "node:net"
import * as NodeBuffer from "../../src/node/socket/NodeBuffer.js"

const KiB = 1024
const make = (limit?: number) => {
  const socket = new Net.Socket()
  return { socket, buffer: NodeBuffer.make(socket, "read", { limit }) }
}
const sizes = FastCheck.array(FastCheck.integer({ min: 1, max: 300 * KiB }), { maxLength: 300 })

describe("NodeBuffer", () => {
  it("grows with bulk, up to its limit, and the socket with it", () => {
    const { buffer, socket } = make()
    for (let turn = 0; turn < 10; turn++) buffer.saw(buffer.mark(), 0)
    assert.deepStrictEqual([buffer.mark(), socket.readableHighWaterMark], [256 * KiB, 256 * KiB])
  })

  it("grows when what was written waits", () => {
    const { buffer } = make()
    buffer.saw(1, 64 * KiB)
    assert.strictEqual(buffer.mark(), 128 * KiB)
  })

  it("is small after a while of chatter, and grows again", () => {
    const { buffer, socket } = make()
    for (let turn = 0; turn < 64; turn++) buffer.saw(100, 0)
    assert.deepStrictEqual([buffer.mark(), socket.readableHighWaterMark], [16 * KiB, 16 * KiB])
    buffer.saw(16 * KiB, 0)
    assert.strictEqual(buffer.mark(), 32 * KiB)
  })

  it.prop("never passes its limit", [FastCheck.integer({ min: 1, max: 2 ** 20 }), sizes], ([limit, sizes]) => {
    const { buffer, socket } = make(limit)
    for (const size of sizes) {
      buffer.saw(size, size % 3)
      assert.isAtMost(buffer.mark(), limit)
      assert.isAtMost(socket.readableHighWaterMark, limit)
    }
  })
})
