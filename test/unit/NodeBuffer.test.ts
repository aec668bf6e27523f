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
  it("bulk raises the high-water mark up to the limit, on the socket too", () => {
    const { buffer, socket } = make()
    for (let turn = 0; turn < 10; turn++) buffer.adapt(buffer.highWaterMark(), 0)
    assert.deepStrictEqual([buffer.highWaterMark(), socket.readableHighWaterMark], [256 * KiB, 256 * KiB])
  })

  it("waiting writes raise the mark", () => {
    const { buffer } = make()
    buffer.adapt(1, 64 * KiB)
    assert.strictEqual(buffer.highWaterMark(), 128 * KiB)
  })

  it("64 small chunks lower the mark, and a full chunk raises it again", () => {
    const { buffer, socket } = make()
    for (let turn = 0; turn < 64; turn++) buffer.adapt(100, 0)
    assert.deepStrictEqual([buffer.highWaterMark(), socket.readableHighWaterMark], [16 * KiB, 16 * KiB])
    buffer.adapt(16 * KiB, 0)
    assert.strictEqual(buffer.highWaterMark(), 32 * KiB)
  })

  it.prop(
    "the mark never exceeds the limit",
    [FastCheck.integer({ min: 1, max: 2 ** 20 }), sizes],
    ([limit, sizes]) => {
      const { buffer, socket } = make(limit)
      for (const size of sizes) {
        buffer.adapt(size, size % 3)
        assert.isAtMost(buffer.highWaterMark(), limit)
        assert.isAtMost(socket.readableHighWaterMark, limit)
      }
    }
  )
})
