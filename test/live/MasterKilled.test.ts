import { assert, describe, it } from "vitest"
import { randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { runs } from "../Runs.js"
import { makeWorld, tunnelKey } from "./command/Nodepass.js"

/** How often the master is killed. */
const kills = runs(3, 40)

interface Known {
  alias: string
  url: string
  version: number
  tags: Readonly<Record<string, string>>
}

interface Listed extends Known {
  readonly id: string
  readonly meta: { readonly tags: Readonly<Record<string, string>> }
}

describe("a master that is killed", () => {
  it("has every acknowledged change after its restart, and no part of an unfinished one", async () => {
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-killed-"))
    try {
      /** The instances after all acknowledged changes. */
      const known = new Map<string, Known>()
      let key = ""
      for (let life = 0; life <= kills; life++) {
        const port = await world.freePort()
        const master = world.start([`master://127.0.0.1:${port}?log=warn&state=${folder}`])
        if (key === "") [, key = ""] = /^API key: (\w+)/.exec(await master.line(/^API key: /)) ?? []
        const call = async (method: string, path: string, body?: unknown) => {
          const response = await fetch(`http://127.0.0.1:${port}/api/v1${path}`, {
            method,
            headers: { "x-api-key": key },
            ...(body === undefined ? {} : { body: JSON.stringify(body) })
          })
          const text = await response.text()
          return { status: response.status, json: text === "" ? undefined : JSON.parse(text) }
        }
        for (;;) {
          const up = await call("GET", "/health").then(
            () => true,
            () => false
          )
          if (up) break
          if (master.child.exitCode !== null) throw new Error(master.log())
          await new Promise((resolve) => setTimeout(resolve, 10))
        }

        const { json } = await call("GET", "/instances")
        const list: ReadonlyArray<Listed> = json.slice(0, -1)
        const found = new Map(list.map((one) => [one.id, one]))
        for (const [id, { alias, tags, url, version }] of known) {
          const instance = found.get(id)
          assert.isDefined(instance, `life ${life}: ${id} is missing`)
          // The change that was not acknowledged may have been stored.
          const isNext = unacknowledged?.id === id
          const next = isNext ? unacknowledged : undefined
          assert.oneOf(instance.alias, [alias, next?.alias ?? alias])
          assert.oneOf(instance.url, [url, next?.url ?? url])
          assert.oneOf(instance.version, [version, next === undefined ? version : version + 1])
          assert.strictEqual(instance.version === version, instance.url === url && instance.alias === alias)
          assert.oneOf(JSON.stringify(instance.meta.tags), [JSON.stringify(tags), JSON.stringify(next?.tags ?? tags)])
        }
        for (const { id, alias, meta, url, version } of list) {
          if (!known.has(id))
            assert.isTrue(
              unacknowledged?.id === "new" || unacknowledged?.id === id,
              `life ${life}: ${id} exists, but was deleted`
            )
          known.set(id, { alias, url, version, tags: meta.tags })
        }
        if (life === kills) {
          await master.stop()
          return
        }

        // Makes changes, one after the other, until the master is dead.
        const dead = new Promise<void>((resolve) =>
          setTimeout(() => void master.stop("SIGKILL").then(() => resolve()), randomInt(1, 60))
        )
        unacknowledged = undefined
        try {
          for (let step = 0; ; step++) {
            const [id, one] = Array.from(known)[randomInt(0, known.size + 1)] ?? []
            const text = `${life}-${step}`
            if (id === undefined || one === undefined) {
              unacknowledged = { id: "new" }
              const made = await call("POST", "/instances", {
                url: `client://${tunnelKey}@127.0.0.1:9/127.0.0.1:10?mode=2&slot=${step + 1}`,
                alias: text
              })
              assert.strictEqual(made.status, 201)
              known.set(made.json.id, { alias: text, url: made.json.url, version: 1, tags: {} })
            } else if (step % 7 === 6 && known.size > 3) {
              known.delete(id)
              unacknowledged = { id }
              assert.strictEqual((await call("DELETE", `/instances/${id}`)).status, 204)
            } else if (step % 2 === 0) {
              unacknowledged = { id, alias: text, tags: { text } }
              const meta = { tags: { text } }
              const patch = await call("PATCH", `/instances/${id}`, { alias: text, meta })
              assert.strictEqual(patch.status, 200)
              Object.assign(one, { alias: text, tags: { text }, version: patch.json.version })
            } else {
              const url = one.url.replace(/slot=\d+/, `slot=${life * 1000 + step + 2000}`)
              unacknowledged = { id, url }
              const put = await call("PUT", `/instances/${id}`, { url })
              assert.strictEqual(put.status, 200)
              Object.assign(one, { url, version: put.json.version })
            }
            unacknowledged = undefined
          }
        } catch (error) {
          if (!(error instanceof TypeError)) throw error
        }
        await dead
      }
    } finally {
      await world.close()
      Fs.rmSync(folder, { recursive: true })
    }
  })
})

/** The change that was not acknowledged when the master was killed. */
let unacknowledged:
  | { readonly id: string; alias?: string; url?: string; tags?: Readonly<Record<string, string>> }
  | undefined
