import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import type { Socket } from "node:net"
import { runs } from "../Runs.js"
import * as Here from "./command/Here.js"
import { makeWorld, type World } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

describe("visitors that never read", () => {
  it.each(["server", "client"] as const)(
    "hold a few megabytes of the kernel each, and keep no other visitor from being served: visitors at the %s",
    async (receiver) => {
      const slowTargets: Array<Socket> = []
      // Endless bytes for a visitor that asks for them, one answer for any other.
      const { port: target } = await world.listen((socket) => {
        socket.once("data", (question) => {
          if (String(question) !== "flood") return void socket.end("answer")
          slowTargets.push(socket)
          const flood = () => {
            while (socket.write(Buffer.alloc(65_536)));
          }
          socket.on("drain", flood)
          flood()
        })
      })
      const { port } = await Here.tunnel(world, { target, receiver, query: "&read=0" })
      const crowd = runs(10, 200)
      for (let slow = 0; slow < crowd; slow++) {
        const socket = world.connect(port)
        socket.pause()
        socket.write("flood")
      }
      /** Bytes that the targets have given to the kernel. */
      const given = () =>
        slowTargets.reduce((sum, { bytesWritten, writableLength }) => sum + bytesWritten - writableLength, 0)
      // Until nothing has moved during twenty visits.
      for (let honest = 0, before = -1; honest < 20; honest++) {
        if (given() !== before) honest = 0
        before = given()
        const socket = world.connect(port)
        socket.write("question")
        const [answer] = await once(socket, "data")
        assert.strictEqual(String(answer), "answer")
      }
      // The target's own socket has up to 4 MiB of them. Without a limit a visitor has more than 20 MB here.
      assert.strictEqual(slowTargets.length, crowd)
      assert.isAtMost(given() / crowd, 12 * 1024 * 1024)
    }
  )
})
