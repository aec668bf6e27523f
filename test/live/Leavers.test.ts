import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import process from "node:process"
import { answering, ask, makeWorld, pause, tunnel, type World } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

/** Connections at this port that have a descriptor: established, or ended by the peer. */
const held = (port: number) => {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`
  const [, ...rows] = readFileSync("/proc/net/tcp", "latin1").trim().split("\n")
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter(([, name, , state, , , , , , inode]) => name?.endsWith(local) && /01|08/.test(state ?? "") && inode !== "0")
    .length
}

describe.skipIf(process.platform !== "linux")("visitors who left while the other side is away", () => {
  it.each(["server", "client"] as const)(
    "hold no descriptor and no slot, and reach no target, except one that has sent something and ended: visitors at the %s",
    async (receiver) => {
      const questions: Array<string> = []
      const { port: target } = await world.listen((socket) => {
        const parts: Array<Buffer> = []
        socket
          .on("data", (part: Buffer) => parts.push(part))
          .on("end", () => questions.push(String(Buffer.concat(parts))))
        answering(socket)
      })
      const { client, port, server, startClient, startServer } = await tunnel(world, {
        target,
        receiver,
        query: "&slot=10",
        // Whoever is not let go waits longer than this test may take.
        env: { NP_POOL_GET_TIMEOUT: "10m" }
      })
      await server.line(/client connected/)
      await (receiver === "server" ? client : server).stop("SIGKILL")
      await (receiver === "server" ? server : client).line(/lost/)

      const come = async (text: string) => {
        const socket = world.connect(port)
        await once(socket, "connect")
        if (text !== "") await new Promise((resolve) => socket.write(text, resolve))
        return socket
      }
      for (let time = 0; time < 3; time++) {
        const [silent, sent, ending] = [await come(""), await come("sent and reset"), await come("")]
        silent.resetAndDestroy()
        sent.resetAndDestroy()
        ending.end()
      }
      const staying = ask(world, port, "sent and ended")
      while (held(port) !== 1) await pause()
      /** One that finds no slot is reset, and comes again. */
      const askAgain = (question: string): Promise<Buffer> =>
        ask(world, port, question).catch(() => pause().then(() => askAgain(question)))
      const others = Array.from({ length: 9 }, (_, at) => askAgain(`other ${at}`))
      while (held(port) !== 10) await pause()

      if (receiver === "server") startClient()
      else startServer()
      const expected = ["sent and ended", ...others.map((_, at) => `other ${at}`)]
      const answers = await Promise.all([staying, ...others])
      assert.deepStrictEqual(
        answers.map(String),
        expected.map((text) => `re:${text}`)
      )
      assert.deepStrictEqual(questions.toSorted(), expected.toSorted())
    }
  )
})
