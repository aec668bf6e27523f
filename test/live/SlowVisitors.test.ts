import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import { runs } from "../Runs.js"
import { makeWorld, tunnel, type World } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

describe("visitors that never read", () => {
  it.each(["server", "client"] as const)(
    "do not keep other visitors from being served: visitors at the %s",
    async (receiver) => {
      // Endless bytes for a visitor that asks for them, one answer for any other.
      const { port: target } = await world.listen((socket) => {
        socket.once("data", (question) => {
          if (String(question) !== "flood") return void socket.end("answer")
          const flood = () => {
            while (socket.write(Buffer.alloc(65_536)));
          }
          socket.on("drain", flood)
          flood()
        })
      })
      const { port } = await tunnel(world, { target, receiver, query: "&read=0" })
      for (let slow = 0; slow < runs(40, 200); slow++) {
        const socket = world.connect(port)
        socket.pause()
        socket.write("flood")
      }
      for (let honest = 0; honest < 20; honest++) {
        const socket = world.connect(port)
        socket.write("question")
        const [answer] = await once(socket, "data")
        assert.strictEqual(String(answer), "answer")
      }
    }
  )
})
