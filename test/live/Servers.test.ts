import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { EventEmitter, once } from "node:events"
import * as Here from "./command/Here.js"
import { answering, ask, fate, makeWorld, type Run, type Start, type World, tunnelKey } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

const env = {
  NP_REPORT_INTERVAL: "800ms",
  NP_RESUME_GRACE: "1s",
  NP_HANDSHAKE_TIMEOUT: "3s",
  NP_SERVICE_COOLDOWN: "1s"
}

describe("a client with several servers", () => {
  it.each(["SIGKILL", "SIGSTOP"] as const)(
    "leaves a server that gets %s, resets the visitors served through it, and returns to it",
    async (signal) => {
      const visits = new EventEmitter()
      const { port: target } = await world.listen((socket) => {
        visits.emit("visit")
        answering(socket.on("error", () => {}))
      })
      const [first, second, visitors] = [await world.freePort(), await world.freePort(), await world.freePort()]
      const here = Here.starter(world)
      const start = async <A extends Run>(port: number, by: Start<A>) => {
        const server = by([`server://${tunnelKey}@127.0.0.1:${port}/127.0.0.1:${target}?mode=2`], env)
        await server.line(/waiting for a client/)
        return server
      }
      const lost = await start(first, world.start)
      await start(second, here)
      const addresses = `127.0.0.1:${first},127.0.0.1:${second}`
      const client = here([`client://${tunnelKey}@${addresses}/127.0.0.1:${visitors}?log=debug`], env)
      await client.line(new RegExp(` connected server=127\\.0\\.0\\.1:${first}`))
      assert.strictEqual(String(await ask(world, visitors, "one")), "re:one")
      const held = world.connect(visitors)
      const ending = fate(held)
      await once(visits, "visit")

      lost.child.kill(signal)
      await client.line(new RegExp(` connected server=127\\.0\\.0\\.1:${second}`))
      assert.strictEqual(String(await ask(world, visitors, "two")), "re:two")
      // With Node's sockets the system closes the connections of a killed process as if all data had been sent.
      const killedByNode = signal === "SIGKILL" && !lost.log().includes("relay: kernel")
      assert.strictEqual(await ending, killedByNode ? "end" : "ECONNRESET")

      if (signal === "SIGKILL") await start(first, here)
      else lost.child.kill("SIGCONT")
      await client.line(/an earlier server is back/)
      assert.strictEqual(String(await ask(world, visitors, "three")), "re:three")
    }
  )
})
