import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import type * as Net from "node:net"
import { runs } from "../Runs.js"
import * as Here from "./command/Here.js"
import { echoing, makeWorld, type World } from "./command/Nodepass.js"
import { listenUdp, visitUdp } from "./command/Udp.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

const echoes = async (socket: Net.Socket, text: string) => {
  socket.write(text)
  const [back] = await once(socket, "data")
  assert.strictEqual(String(back), text)
}

describe("a crowd of UDP visitors", () => {
  it.each(["server", "client"] as const)(
    "that ask once each keeps no TCP visitor away: visitors at the %s",
    async (receiver) => {
      const { port: target } = await world.listen(echoing, await world.freePort())
      await listenUdp(world, undefined, target)
      const { client, port, server } = await Here.tunnel(world, { target, receiver })
      const beside = world.connect(port)
      await echoes(beside, "hello")
      const crowd = runs(100, 5000)
      for (let asked = 0; asked < crowd; asked += 50) {
        const visitors = await Promise.all(Array.from({ length: 50 }, () => visitUdp(world, port)))
        await Promise.all(visitors.map(({ ask }) => ask("a question")))
        await echoes(world.connect(port), "a TCP visitor")
      }
      await echoes(beside, "still here")
      for (const { log } of [client, server]) assert.notMatch(log(), /slots/)
    }
  )
})
