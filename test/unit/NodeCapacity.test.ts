import { assert, describe, it } from "@effect/vitest"
import * as NodeCapacity from "../../src/node/process/NodeCapacity.js"

const gigabyte = 2 ** 30

describe("NodeCapacity", () => {
  it.each([
    [{ descriptors: 128, heapBytes: 4 * gigabyte }, 48],
    [{ descriptors: 1024, heapBytes: 4 * gigabyte }, 384],
    [{ descriptors: 20_000, heapBytes: 4 * gigabyte }, 9872],
    [{ descriptors: Infinity, heapBytes: 4 * gigabyte }, 37_449],
    [{ descriptors: Infinity, heapBytes: gigabyte / 4 }, 2340],
    [{ descriptors: 1, heapBytes: 1 }, 1]
  ])("%j has room for %i visitors", (limits, visitors) => {
    assert.strictEqual(NodeCapacity.visitorsFor(limits), visitors)
  })
})
