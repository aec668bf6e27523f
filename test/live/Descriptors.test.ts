import { assert, describe, it } from "vitest"
import { spawn } from "node:child_process"
import { once } from "node:events"
import type * as Net from "node:net"
import process from "node:process"
import * as Lag from "../Lag.js"
import { echoing, makeWorld, type World, tunnelKey } from "./command/Nodepass.js"

/** The command with at most 128 file descriptors. Its log is complete up to the line that was waited for. */
const start = (world: World, url: string) => {
  const child = world.own(
    spawn("sh", ["-c", 'ulimit -n 128; exec "$0" bin/nodepass.js "$1"', process.execPath, url], {
      stdio: ["ignore", "ignore", "pipe"]
    }),
    (child) => child.kill("SIGKILL")
  )
  let log = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => (log += text))
  return {
    log: () => log,
    line: async (pattern: RegExp) => {
      while (!pattern.test(log)) await once(child.stderr, "data")
    }
  }
}

const answered = async (socket: Net.Socket) => {
  socket.write("question")
  const [bytes] = await once(socket, "data")
  socket.destroy()
  return String(bytes)
}

describe.skipIf(process.platform !== "linux")("a process with 128 file descriptors", () => {
  it.each(["server", "client"] as const)(
    "serves the next visitor within 2 seconds after 300 at once have left, with visitors at the %s",
    { timeout: 120_000 },
    async (receiver) => {
      const world = makeWorld()
      try {
        const target = await world.listen(echoing)
        const [tunnelPort, port] = [await world.freePort(), await world.freePort()]
        const [near, far] = [`127.0.0.1:${port}`, `127.0.0.1:${target.port}`]
        const [serverTarget, clientTarget, mode] = receiver === "server" ? [near, far, 1] : [far, near, 2]
        const server = start(
          world,
          `server://${tunnelKey}@127.0.0.1:${tunnelPort}/${serverTarget}?mode=${mode}&max=999&slot=1001`
        )
        await server.line(/waiting for a client/)
        const client = start(world, `client://${tunnelKey}@127.0.0.1:${tunnelPort}/${clientTarget}?mode=2`)
        await client.line(/ connected /)
        assert.strictEqual(await answered(world.connect(port)), "question")

        // It was 32 seconds and more. The machine can only add to it.
        await Lag.within(2000, async () => {
          const crowd = Array.from({ length: 300 }, () => world.connect(port))
          await Promise.allSettled(crowd.map((socket) => once(socket, "connect")))
          for (const socket of crowd) socket.write("question")
          // Some have an answer, and the others wait.
          await Promise.any(crowd.map((socket) => once(socket, "data")))
          for (const socket of crowd) socket.destroy()
          const begun = performance.now()
          // Refused while the slots of the crowd are still held.
          while ((await answered(world.connect(port)).catch(() => "refused")) === "refused") continue
          return performance.now() - begun
        })
        assert.include(
          server.log(),
          "the limit of 128 file descriptors is too low for slot=1001 and max=999: it is enough for about 24 visitors"
        )
        const log = receiver === "server" ? server.log() : client.log()
        assert.isAtMost(log.match(new RegExp(`port 127.0.0.1:${port}: cannot accept`, "g"))?.length ?? 0, 1)
      } finally {
        await world.close()
      }
    }
  )
})
