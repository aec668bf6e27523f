import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { constants } from "node:os"
import * as Address from "../../src/core/Address.js"
import * as Errno from "../../src/node/socket/Errno.js"

const address = Address.make("127.0.0.1", 80)
const errnos = Object.entries(constants.errno)

describe("Errno", () => {
  it.prop(
    "an errno of the kernel and the same error of Node have one reason",
    [FastCheck.constantFrom(...errnos)],
    ([[code, errno]]) => {
      const [kernel, node] = [
        Errno.fromErrno("read", address, errno),
        Errno.fromNode("read", address, Object.assign(new Error(code), { code, errno: -errno }))
      ]
      assert.deepStrictEqual([kernel.reason, kernel.message], [node.reason, node.message])
    }
  )

  it("the cause of an errno is its name", () => {
    const error = Errno.fromErrno("connect", address, constants.errno.ECONNREFUSED)
    assert.deepStrictEqual([error.reason, error.cause], ["Refused", "ECONNREFUSED"])
  })

  it("what is in no table is Unknown", () => {
    for (const error of [
      Errno.fromErrno("read", address, 0),
      Errno.fromErrno("read", address, 9999),
      Errno.fromNode("read", address, new Error("no code")),
      Errno.fromNode("read", address, null)
    ]) {
      assert.strictEqual(error.reason, "Unknown")
    }
  })
})
