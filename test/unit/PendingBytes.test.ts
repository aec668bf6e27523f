import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { PendingBytes } from "../../src/stream/PendingBytes.js"
import type { Connection } from "../../src/transport/NonBlocking.js"
import { broken, nothing } from "../../src/transport/NonBlocking.js"

const connection = (write: Connection["write"]): Connection => ({
  read: () => nothing,
  write,
  shutdown: () => {},
  close: () => {},
  reset: () => {},
  setOwner: () => {}
})

type Step = { readonly _tag: "Add" | "Flush"; readonly bytes: number }

const step: FastCheck.Arbitrary<Step> = FastCheck.record({
  _tag: FastCheck.constantFrom("Add" as const, "Add" as const, "Flush" as const),
  bytes: FastCheck.oneof(FastCheck.constant(1), FastCheck.nat(5000))
})

describe("PendingBytes", () => {
  it.prop(
    "gives the bytes in order, each once, written or taken",
    [FastCheck.array(step, { maxLength: 40, size: "max" })],
    ([steps]) => {
      const pending = new PendingBytes()
      const given: Array<number> = []
      let [added, room] = [0, 0]
      const target = connection((bytes, at, size) => {
        const count = Math.min(room, size)
        room -= count
        for (const byte of bytes.subarray(at, at + count)) given.push(byte)
        return count
      })
      for (const { _tag, bytes } of steps) {
        if (_tag === "Add") {
          // The caller uses its memory again.
          const memory = new Uint8Array(bytes + 3).map((_, at) => added + at - 1)
          pending.add(memory, 1, bytes + 1)
          memory.fill(0)
          added += bytes
        } else {
          room = bytes
          const size = pending.size
          assert.strictEqual(pending.flush(target), Math.min(size, bytes))
        }
        assert.strictEqual(pending.size, added - given.length)
      }
      given.push(...pending.takeAll())
      assert.strictEqual(pending.size, 0)
      assert.strictEqual(given.length, added)
      for (const [at, byte] of given.entries()) if (byte !== (at & 255)) assert.fail(`wrong at ${at}`)
    }
  )

  it("says that the connection is broken, and keeps the bytes", () => {
    const pending = new PendingBytes()
    pending.add(Uint8Array.of(1, 2), 0, 2)
    assert.strictEqual(pending.flush(connection(() => broken)), broken)
    assert.strictEqual(pending.size, 2)
  })
})
