import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as ReceiveBuffers from "../../src/node/kernel/ReceiveBuffers.js"
import { options } from "../../src/node/kernel/ffi/Sockets.js"

const maxSize = 1_000_000

/** Descriptors whose buffers double in each round until they are locked. */
const makeSockets = () => {
  const sizes = new Map<number, number>()
  const locked = new Set<number>()
  return {
    open: (fd: number) => void sizes.set(fd, 1000),
    close: (fd: number) => void sizes.delete(fd),
    isGrowing: (fd: number) => sizes.has(fd) && !locked.has(fd),
    total: () => Array.from(sizes.values()).reduce((sum, size) => sum + size, 0),
    round: () => {
      for (const [fd, size] of sizes) if (!locked.has(fd)) sizes.set(fd, Math.min(maxSize, size * 2))
    },
    get: (fd: number, _: unknown, value: Uint8Array) => {
      new DataView(value.buffer).setInt32(0, sizes.get(fd) ?? 0, true)
      return sizes.has(fd) ? 0 : -1
    },
    set: (fd: number, [, name]: readonly [number, number], value: number) => {
      assert.strictEqual(name, options.bufferLock[1])
      if (value === 0) locked.delete(fd)
      else locked.add(fd)
      return 0
    }
  }
}

describe("receive buffers of lasting exchanges", () => {
  it.prop(
    "grow a few at a time, each in its turn, within the budget, and only while bytes pass",
    [
      FastCheck.integer({ min: 1, max: 40 }),
      FastCheck.integer({ min: 1, max: 5 }),
      FastCheck.integer({ min: 10_000, max: 30_000_000 }),
      FastCheck.func(FastCheck.boolean())
    ],
    ([count, turns, budget, isSlow]) => {
      const sockets = makeSockets()
      const receiveBuffers = ReceiveBuffers.make(sockets, { budget, turns })
      const open = Array.from({ length: count }, (_, at) => {
        for (const fd of [2 * at, 2 * at + 1]) sockets.open(fd)
        return { at, buffers: receiveBuffers.add(2 * at, 2 * at + 1), slow: isSlow(at), rounds: 0 }
      })
      const growing = () => open.filter(({ at }) => sockets.isGrowing(2 * at))
      const most = Math.max(2000 * count, budget) + turns * 2 * maxSize
      let isShort = false
      for (let round = 0; round < 4 * count; round++) {
        sockets.round()
        for (const exchange of open) exchange.buffers.tick(!exchange.slow)
        isShort ||= receiveBuffers.size() >= budget
        for (const exchange of growing()) exchange.rounds++
        assert.isAtMost(growing().length, turns)
        assert.isAtMost(sockets.total(), most)
        for (const { slow } of growing()) assert.isFalse(slow)
      }
      if (!isShort) for (const { rounds, slow } of open) assert.strictEqual(rounds > 0, !slow)
      for (const { at, buffers } of open) {
        buffers.close()
        for (const fd of [2 * at, 2 * at + 1]) sockets.close(fd)
      }
      assert.strictEqual(receiveBuffers.size(), 0)
    }
  )
})
