import { assert, describe, it } from "@effect/vitest"
import * as Capacity from "../../src/relay/Capacity.js"

const gigabyte = 2 ** 30

describe("Capacity", () => {
  it.each([
    [{ descriptors: 128, heapBytes: 4 * gigabyte }, 48],
    [{ descriptors: 1024, heapBytes: 4 * gigabyte }, 384],
    [{ descriptors: 20_000, heapBytes: 4 * gigabyte }, 9872],
    [{ descriptors: Infinity, heapBytes: 4 * gigabyte }, 37_449],
    [{ descriptors: Infinity, heapBytes: gigabyte / 4 }, 2340],
    [{ descriptors: 1, heapBytes: 1 }, 1]
  ])("%j has room for %i visitors", (limits, visitors) => {
    assert.strictEqual(Capacity.fromLimits(limits).visitors, visitors)
  })

  it.each([
    [64, { reserve: 25, pool: 1, peers: 12 }],
    [128, { reserve: 51, pool: 16, peers: 25 }],
    [1024, { reserve: 128, pool: 240, peers: 64 }],
    [20_000, { reserve: 256, pool: 1024, peers: 512 }],
    [Infinity, { reserve: 256, pool: 1024, peers: 512 }]
  ])("of %d descriptors keeps a reserve, and bounds pool and unauthenticated peers", (descriptors, expected) => {
    const capacity = Capacity.fromLimits({ descriptors, heapBytes: gigabyte })
    assert.deepStrictEqual(
      {
        reserve: Capacity.reserveOf(descriptors),
        pool: Capacity.poolLimit(capacity, 1024),
        peers: Capacity.peerLimit(capacity)
      },
      expected
    )
  })
})
