import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import { runs } from "../Runs.js"
import { echoing, makeWorld, tunnel, type World } from "./command/Nodepass.js"
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

const residentBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(Fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024

describe("a crowd of UDP visitors", () => {
  it.each(["server", "client"] as const)(
    "that ask once each, more than a thousand of them, keeps no TCP visitor away: visitors at the %s",
    async (receiver) => {
      const { port: target } = await world.listen(echoing, await world.freePort())
      await listenUdp(world, undefined, target)
      const { client, port, server } = await tunnel(world, { target, receiver })
      const beside = world.connect(port)
      await echoes(beside, "hello")
      const before = [client, server].map(({ pid }) => residentBytes(pid))
      const crowd = runs(1500, 5000)
      for (let asked = 0; asked < crowd; asked += 50) {
        const visitors = await Promise.all(Array.from({ length: 50 }, () => visitUdp(world, port)))
        await Promise.all(visitors.map(({ ask }) => ask("a question")))
        await echoes(world.connect(port), "a TCP visitor")
      }
      await echoes(beside, "still here")
      for (const [at, { log, pid }] of [client, server].entries()) {
        assert.notMatch(log(), /slots/)
        // All sessions are still there: their 30 s have not passed, or only on a slow machine.
        const bytes = residentBytes(pid) - (before[at] ?? 0)
        assert.isBelow(bytes / crowd, 96 * 1024)
      }
    }
  )
})
