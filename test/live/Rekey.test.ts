import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import { answering, ask, makeWorld, type Run, tunnelKey, type World } from "./command/Nodepass.js"

let world: World
let folder: string
beforeEach(() => {
  world = makeWorld()
  folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-rekey-"))
})
afterEach(async () => {
  await world.close()
  Fs.rmSync(folder, { recursive: true })
})

/** Random keys: only weak ones are stretched, and warned of. */
const [firstKey, secondKey] = [tunnelKey, "w7c2m4q6x3n5t2b7r4k6z3f5ha"]

/** The lines of a log that match. */
const count = ({ log }: Run, pattern: RegExp) => log().match(pattern)?.length ?? 0

/** A tunnel whose sides read their keys from files. */
const pair = async (target: number, env: Readonly<Record<string, string>>) => {
  const here = Here.starter(world)
  const port = await world.freePort()
  const tunnelPort = await world.freePort()
  const file = (side: string) => Path.join(folder, side)
  const write = (side: string, key: string) => Fs.writeFileSync(file(side), `${key}\n`, { mode: 0o600 })
  const urls: Readonly<Record<string, string>> = {
    server: `server://127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1`,
    client: `client://127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2`
  }
  const argsOf = (side: string) => ["--key-file", file(side), urls[side] ?? ""]
  const start = (side: string) => here(argsOf(side), env)
  for (const side of ["server", "client"]) write(side, firstKey)
  const server = start("server")
  await server.line(/waiting for a client/)
  const client = start("client")
  await client.line(/ connected /)
  const replace = async (side: "server" | "client", key: string) => {
    const process = side === "server" ? server : client
    write(side, key)
    process.reload()
    await process.line(/replaced the tunnel key/)
  }
  return { port, server, client, replace, write, start, argsOf }
}

describe("a new tunnel key", () => {
  it.each([["server", "client"] as const, ["client", "server"] as const])(
    "on the %s first interrupts no visitor, and the old key is refused in the end",
    async (first, second) => {
      const { port: target } = await world.listen((socket) => socket.on("data", (chunk) => socket.write(chunk)))
      const { client, port, replace, server, start, write } = await pair(target, { NP_KEY_GRACE: "2s" })
      const held = world.connect(port)
      const echo = async (text: string) => {
        held.write(text)
        const [back] = await once(held, "data")
        assert.strictEqual(String(back), text)
      }
      await echo("before")
      await replace(first, secondKey)
      await echo("between")
      await replace(second, secondKey)
      await client.line(/connected again/)
      await echo("after")
      await server.line(/a previous tunnel key has expired/)
      await echo("in the end")
      assert.strictEqual(count(client, / connected server=/g), 1)
      assert.strictEqual(count(server, /the session is over/g), 0)
      for (const side of [server, client]) assert.strictEqual(count(side, /WARN/g), 0, side.log())

      await client.stop()
      write("client", firstKey)
      const late = start("client")
      await late.line(/no session: .* the keys differ/)
      await late.stop()
      write("client", secondKey)
      await start("client").line(/ connected /)
    }
  )

  it("closes the control connection of a client without the new key when the grace period ends", async () => {
    const { port: target } = await world.listen(answering)
    const { client, port, replace, server } = await pair(target, { NP_KEY_GRACE: "1s", NP_RESUME_GRACE: "1s" })
    assert.strictEqual(String(await ask(world, port, "one")), "re:one")
    await replace("server", secondKey)
    await client.line(/the keys differ/)
    await server.line(/client lost: .* the session is over/)
  })

  it("is ignored with a warning when the file is invalid", async () => {
    const { port: target } = await world.listen(answering)
    const { argsOf, client, port, write } = await pair(target, {})
    await client.stop()
    const process = world.start(argsOf("client"))
    await process.line(/ connected /)
    write("client", "")
    process.child.kill("SIGHUP")
    await process.line(/--key-file=.*: expected a key in the first line, which is empty; the tunnel key is unchanged/)
    assert.strictEqual(String(await ask(world, port, "one")), "re:one")
  })
})
