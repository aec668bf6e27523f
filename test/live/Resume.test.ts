import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as CuttingProxy from "./command/CuttingProxy.js"
import * as Here from "./command/Here.js"
import { answering, ask, echoing, fate, makeWorld, pause, tunnel, tunnelKey, type World } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(async () => {
  await world.close()
  // Until then processes write there.
  for (const folder of folders.splice(0)) Fs.rmSync(folder, { recursive: true })
})
const folders: Array<string> = []
const makeFolder = () => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-state-"))
  folders.push(folder)
  return folder
}

/** Sends bytes and checks that all of them return. */
const echo = async (socket: Net.Socket, bytes: Buffer) => {
  socket.write(bytes)
  const back: Array<Buffer> = []
  let length = 0
  while (length < bytes.length) {
    const [chunk] = await once(socket, "data")
    assert.isTrue(Buffer.isBuffer(chunk))
    back.push(chunk)
    length += chunk.length
  }
  assert.isTrue(Buffer.concat(back).equals(bytes))
}

describe("a control connection that is cut repeatedly", () => {
  it.each([
    ["server", ""],
    ["client", ""],
    ["server", "&tls=1"]
  ] as const)(
    "interrupts no transfer and no new visitor, and the session continues, visitors at the %s%s",
    async (receiver, serverQuery) => {
      const { port: target } = await world.listen((socket) => {
        socket.once("data", (first: Buffer) => {
          socket.unshift(first)
          if (first[0] === 0) echoing(socket)
          else answering(socket)
        })
      })
      const { cut, through } = CuttingProxy.make(world, "control")
      const { client, port, server } = await Here.tunnel(world, { target, receiver, serverQuery, through })
      const visitor = world.connect(port)
      const broke = fate(visitor)
      const body = Buffer.alloc(1 << 20, "body")
      body[0] = 0
      await echo(visitor, body)
      for (let round = 0; round < 6; round++) {
        const echoed = echo(visitor, body)
        await cut()
        assert.strictEqual(String(await ask(world, port, `visitor ${round}`)), `re:visitor ${round}`)
        await echoed
      }
      visitor.end()
      assert.strictEqual(await broke, "end")
      // A cut may hit the next control connection in its handshake.
      const refused = /session over|the session is over|refused=(?!handshake)/
      for (const { log } of [server, client]) assert.notMatch(log(), refused)
      assert.match(server.log(), /client resumed its session/)
      assert.lengthOf(client.log().match(/ connected server=/g) ?? [], 1)
    }
  )

  it("a restarted server continues its session from a file that only its user can read", async () => {
    const directory = makeFolder()
    const { port: target } = await world.listen(answering)
    const { client, port, server, startServer } = await Here.tunnel(world, {
      target,
      receiver: "server",
      env: { NP_STATE_DIR: directory }
    })
    await ask(world, port, "first")
    assert.strictEqual(await server.stop(), 0)
    const stored = () => Fs.readdirSync(directory).filter((name) => /^session-127.*\.json$/.test(name))
    const [file = ""] = stored()
    assert.strictEqual(Fs.statSync(Path.join(directory, file)).mode & 0o777, 0o600)
    assert.notInclude(Fs.readFileSync(Path.join(directory, file), "utf8"), tunnelKey)
    const next = startServer()
    await next.line(/client resumed its session/)
    assert.strictEqual(String(await ask(world, port, "next")), "re:next")
    assert.lengthOf(client.log().match(/ connected server=/g) ?? [], 1)
  })

  it.each([
    ["", "in clear"],
    ["&tls=1", "under another certificate"]
  ])(
    "a side that is killed%s resumes its session %s: visitors are reset, and new ones served, at once",
    async (serverQuery) => {
      const directory = makeFolder()
      const targets = { open: 0 }
      const { port: target } = await world.listen((socket) => {
        targets.open++
        socket.on("close", () => targets.open--)
        echoing(socket)
      })
      const sides = await tunnel(world, { target, receiver: "server", serverQuery, env: { NP_STATE_DIR: directory } })
      const { port, startClient, startServer } = sides
      let { client, server } = sides
      const visit = async () => {
        const visitor = world.connect(port)
        const broke = fate(visitor)
        await echo(visitor, Buffer.from("question"))
        return { visitor, broke }
      }
      const keeps = async (name: RegExp) => {
        while (!Fs.readdirSync(directory).some((file) => name.test(file))) await pause()
      }
      await keeps(/^session-client-.*json$/)
      await keeps(/^session-127.*json$/)
      for (const round of ["client", "server"] as const) {
        const { broke } = await visit()
        const killed = round === "client" ? client : server
        await killed.stop("SIGKILL")
        if (round === "client") {
          client = startClient()
          await client.line(/connected again/)
          await server.logged(/another process of the client resumes the session/)
        } else {
          server = startServer()
          await server.line(/client resumed its session/)
          await client.logged(/another process of the server resumes the session/)
        }
        assert.match(await broke, /ECONNRESET|close/)
        const { visitor } = await visit()
        // Those of before have left the target as well.
        while (targets.open > 1) await pause()
        visitor.destroy()
        await server.line(/ client connected /)
      }
      for (const { log } of [server, client])
        assert.notMatch(log(), / connected server=|the session is over|session over/)
      assert.strictEqual(await client.stop(), 0)
      assert.isFalse(Fs.readdirSync(directory).some((file) => /^session-client-.*json$/.test(file)))
    }
  )

  it("after the grace period the session ends, and a new one starts", async () => {
    const { port: target } = await world.listen(answering)
    const { cut, through } = CuttingProxy.make(world, "control")
    const { client, port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      through,
      env: { NP_RESUME_GRACE: "1ms" }
    })
    await ask(world, port, "first")
    await cut()
    await server.line(/client lost: .* the session is over/)
    assert.strictEqual(String(await ask(world, port, "next")), "re:next")
    assert.lengthOf(client.log().match(/ connected server=/g) ?? [], 2)
  })
})
