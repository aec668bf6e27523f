import { afterAll, assert, beforeAll, describe, it } from "vitest"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Postgres from "./command/Postgres.js"
import * as Here from "./command/Here.js"
import { apiKeyOf, makeWorld, pause } from "./command/Nodepass.js"

describe.skipIf(Postgres.programs === undefined)("a master with its state in PostgreSQL", () => {
  let postgres: Postgres.Postgres | undefined
  beforeAll(async () => {
    postgres = await Postgres.make(Postgres.programs ?? "")
    await postgres.start()
  })
  afterAll(() => postgres?.close())

  it("refuses changes and reports the problem while the database is down, and continues when it is up", async () => {
    assert.isDefined(postgres)
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-postgres-"))
    try {
      const port = await world.freePort()
      const url = `master://127.0.0.1:${port}?state=${postgres.url}`
      const env = { NP_REPORT_INTERVAL: "100ms", NP_STATE_DIR: folder }
      const first = world.start([url], env)
      const key = await apiKeyOf(first, port)
      const call = async (method: string, path: string, body?: unknown) => {
        const response = await fetch(`http://127.0.0.1:${port}/api/v1${path}`, {
          method,
          headers: { "x-api-key": key },
          ...(body === undefined ? {} : { body: JSON.stringify(body) })
        })
        const text = await response.text()
        return { status: response.status, json: text === "" ? undefined : JSON.parse(text) }
      }
      const aliases = async () =>
        (await call("GET", "/instances")).json.map(({ alias }: { readonly alias: string }) => alias).slice(0, -1)
      const ready = async (status: number) => {
        for (;;) {
          const health = await call("GET", "/health")
          if (health.status === status) return health.json.ready
          await pause()
        }
      }
      const forward = async () => `client://127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1`
      const made = await call("POST", "/instances", { url: await forward(), alias: "one" })
      assert.deepStrictEqual([made.status, made.json.status], [201, "running"])
      const { id } = made.json
      const patch = (alias: string) => call("PATCH", `/instances/${id}`, { alias })

      // A second master exits.
      const here = Here.starter(world)
      const second = here([`master://127.0.0.1:${await world.freePort()}?state=${postgres.url}`], env)
      assert.strictEqual(await second.ended, 1)
      assert.match(second.log(), /^nodepass: state postgres:\/\/\S+: another master uses it$/m)

      for (const round of [1, 2]) {
        await postgres.stop()
        const { reasons } = await ready(503)
        assert.match(reasons.join(), /^state postgres:\/\/\*\*\*@127\.0\.0\.1:\d+\/postgres: \S+/)
        const refused = await patch("refused")
        assert.strictEqual(refused.status, 503)
        assert.match(refused.json.error, /^state postgres:/)
        assert.strictEqual((await call("POST", "/instances", { url: await forward() })).status, 503)
        assert.strictEqual((await call("PUT", `/instances/${id}`, { url: await forward() })).status, 503)
        assert.strictEqual((await call("DELETE", `/instances/${id}`)).status, 503)
        // Reads still work, and instances keep running.
        assert.deepStrictEqual((await call("GET", `/instances/${id}`)).json.status, "running")
        await postgres.start()
        assert.deepStrictEqual(await ready(200), {
          ok: true,
          reasons: ["all instances that should run do, and the store works"]
        })
        assert.strictEqual((await patch(`saved ${round}`)).status, 200)
      }
      const moved = await call("PUT", `/instances/${id}`, { url: await forward() })
      // Two aliases and a URL since it was created: what was refused is no version.
      assert.deepStrictEqual([moved.status, moved.json.version], [200, 4])

      await first.stop("SIGKILL")
      const again = here([url], env)
      await again.line(/the API is ready/)
      assert.deepStrictEqual(await aliases(), ["saved 2"])
      assert.strictEqual((await call("GET", `/instances/${id}`)).json.url, moved.json.url)
      assert.strictEqual((await call("GET", `/instances/${id}/versions`)).json.length, 2)
      assert.strictEqual(await again.stop(), 0)

      // Its backup has another name than that of a folder.
      const backup = Path.join(folder, "postgres-backup.json")
      assert.deepStrictEqual(Fs.readdirSync(folder), [Path.basename(backup)])
      const restore = here(["restore", backup, "--state", postgres.url], env)
      assert.strictEqual(await restore.ended, 1)
      assert.match(restore.log(), /^nodepass: state postgres:\/\/\S+: it has 1 instances; use --force to replace them/m)
      assert.strictEqual(await here(["restore", backup, "--force", "--state", postgres.url], env).ended, 0)
    } finally {
      await world.close()
      Fs.rmSync(folder, { recursive: true })
    }
  })
})
