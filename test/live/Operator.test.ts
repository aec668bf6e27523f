import { assert, describe, it } from "vitest"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import { apiKeyOf, makeWorld, type Run } from "./command/Nodepass.js"

describe("the commands that operate a master", () => {
  it("call the API, print tables or JSON, and find the master in a saved profile", async () => {
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-operator-"))
    try {
      const port = await world.freePort()
      const master = world.start([`master://127.0.0.1:${port}?log=none&state=${folder}/state`])
      const key = await apiKeyOf(master, port)
      const env = { XDG_CONFIG_HOME: folder, NP_MASTER: "", NP_API_KEY: "" }
      const here = Here.starter(world)
      const outcome = async ({ ended, log, out }: Run) => ({ code: await ended, out: out(), error: log() })
      const nodepass = (...args: ReadonlyArray<string>) => outcome(here(args, env))

      const unknown = await outcome(world.start(["info"], env))
      assert.deepStrictEqual([unknown.code, unknown.out], [1, ""])
      assert.match(
        unknown.error,
        /^nodepass: --master is missing: expected the URL of the API, .* in --master, NP_MASTER or nodepass profile$/m
      )
      const api = `http://127.0.0.1:${port}/api/v1`
      assert.strictEqual((await nodepass("profile", "--master", api, "--key", key)).code, 0)
      assert.strictEqual(Fs.statSync(Path.join(folder, "nodepass/profile.json")).mode & 0o777, 0o600)

      const url = `client://secret@127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1`
      const made = await nodepass("instances", "create", "--alias", "web", url)
      const [, id = ""] = /^([0-9a-f]{8})  web +serving /m.exec(made.out) ?? []
      assert.notInclude(made.out, "secret")
      assert.strictEqual(JSON.parse((await nodepass("instances", "get", "--json", id)).out).url, `${url}&log=none`)

      assert.match((await nodepass("instances", "stop", id)).out, /web +stopped/)
      const set = await nodepass(
        "instances",
        "set",
        "--if-version",
        "1",
        "--alias",
        "api",
        "--url",
        `${url}&slot=3`,
        id
      )
      assert.match(set.out, /api +serving .*slot=3/)
      assert.match((await nodepass("instances", "versions", id)).out, /^3 \* .*slot=3.*\n1 /m)
      assert.notMatch((await nodepass("instances", "rollback", id, "1")).out, /slot=3/)
      assert.match((await nodepass("tcping", `127.0.0.1:${port}`)).out, /^connected +true$/m)

      const failed = await nodepass("tcping", `127.0.0.1:${await world.freePort()}`)
      assert.strictEqual(failed.code, 1)
      assert.match(failed.out, /^connected +false$/m)
      assert.match(failed.error, /^nodepass: 127\.0\.0\.1:\d+: .*refused/)

      const changed = await nodepass("instances", "rm", "--if-version", "2", id)
      assert.deepStrictEqual(
        [changed.code, changed.error],
        [1, `nodepass: If-Match: instance ${id} has changed; its version is "4" now\n`]
      )

      const { port: used } = await world.listen(() => {})
      const busy = await nodepass("instances", "create", `client://127.0.0.1:${used}/127.0.0.1:9?mode=1`)
      const [, busyId = ""] = /^([0-9a-f]{8}) .* error /m.exec(busy.out) ?? []
      assert.deepStrictEqual(
        [busy.code, busy.error],
        [1, `nodepass: instance ${busyId}: listen 127.0.0.1:${used}: address already in use\n`]
      )
      assert.strictEqual((await nodepass("instances", "restart", busyId)).code, 1)
      const busyUrl = `client://127.0.0.1:${used}/127.0.0.1:9?mode=1&slot=3`
      assert.strictEqual((await nodepass("instances", "set", "--url", busyUrl, busyId)).code, 1)
      assert.strictEqual((await nodepass("instances", "rollback", busyId, "1")).code, 1)
      const renamed = await nodepass("instances", "set", "--alias", "busy", "--if-version", "3", busyId)
      assert.deepStrictEqual([renamed.code, /^nodepass: .* address already in use$/m.test(renamed.error)], [1, true])
      assert.strictEqual((await nodepass("instances", "rm", busyId)).code, 0)

      const events = here(["events"], env)
      await events.line(/ initial {2}/)
      assert.deepStrictEqual(await nodepass("instances", "rm", "--if-version=4", id), { code: 0, out: "", error: "" })
      await events.line(new RegExp(` delete {2}${id}`))
      const gone = await nodepass("instances", "get", id)
      assert.deepStrictEqual([gone.code, gone.error], [1, `nodepass: instance ${id}: not found\n`])

      await master.stop()
      const away = await nodepass("info")
      assert.strictEqual(away.code, 1)
      assert.match(away.error, new RegExp(`^nodepass: no response from http://127.0.0.1:${port}: `))
    } finally {
      await world.close()
      Fs.rmSync(folder, { recursive: true })
    }
  })
})
