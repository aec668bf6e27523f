import { assert, describe, it } from "vitest"
import process from "node:process"
import * as Libc from "../../src/node/kernel/ffi/Libc.js"
import * as Uv from "../../src/node/kernel/ffi/Uv.js"
import * as Poller from "../../src/node/kernel/Poller.js"

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

/** The next turn of Node's loop. */
const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

describe.runIf(process.platform === "linux")("Poller", () => {
  it.each(["in Node's loop", "in turns of it"])(
    "calls once for each change, and not after the end: %s",
    async (where) => {
      const libc = await Libc.load()
      const uv = where === "in Node's loop" ? await Uv.load(libc) : undefined
      assert.strictEqual(uv === undefined, where !== "in Node's loop")
      const poller = Poller.make(libc, uv)
      const fds = [libc.eventfd(), libc.eventfd()] as const
      const calls = [0, 0]
      for (const [at, fd] of fds.entries()) {
        poller.watch(fd, {
          handle: ({ readable }) => {
            if (!readable) return
            libc.read(fd, new Uint8Array(8), 8)
            calls[at] = (calls[at] ?? 0) + 1
          }
        })
      }
      for (let round = 1; round <= 50; round++) {
        libc.write(fds[0], one, one.length)
        if (round % 2 === 0) libc.write(fds[1], one, one.length)
        while (calls[0] !== round || calls[1] !== Math.floor(round / 2)) await turn()
      }
      poller.unwatch(fds[0])
      libc.write(fds[0], one, one.length)
      libc.write(fds[1], one, one.length)
      while (calls[1] !== 26) await turn()
      assert.deepStrictEqual(calls, [50, 26])
      for (const fd of fds) {
        poller.forget(fd)
        libc.close(fd)
      }
      await turn()
      // The last one has left, and another one is watched.
      const again = libc.eventfd()
      let isCalled = false
      poller.watch(again, { handle: ({ readable }) => (isCalled ||= readable) })
      libc.write(again, one, one.length)
      while (!isCalled) await turn()
      poller.forget(again)
      libc.close(again)
    }
  )
})
