import { assert, describe, it } from "vitest"
import { readFileSync } from "node:fs"
import * as Http from "node:http"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import { makeWorld } from "./command/Nodepass.js"
import { folder } from "./command/Program.js"

/** What a path answers, with nothing decoded and no redirect followed. */
const get = (url: string, headers: Http.OutgoingHttpHeaders = {}, method = "GET") =>
  new Promise<{ readonly status: number; readonly headers: Http.IncomingHttpHeaders; readonly body: Buffer }>(
    (resolve, reject) => {
      const request = Http.request(url, { method, headers, agent: false }, (response) => {
        const parts: Array<Buffer> = []
        response
          .on("data", (part: Buffer) => parts.push(part))
          .once("end", () =>
            resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) })
          )
      })
      request.once("error", reject).end()
    }
  )

describe("the files of the master's page", () => {
  it("are there below the base path, lead to it from above, and load nothing from other hosts", async () => {
    const world = makeWorld()
    try {
      const state = folder(world)
      const port = await world.freePort()
      const master = world.start([`master://127.0.0.1:${port}/over/there?state=${state}`])
      await master.line(/API is ready/)
      const at = `http://127.0.0.1:${port}`

      for (const path of ["/", "/over/there", "/over/there/", "/over/there/v1", "/over//there/v1/"]) {
        const { headers, status } = await get(at + path)
        assert.strictEqual(status, 307, path)
        assert.strictEqual(new URL(String(headers.location), at + path).href, `${at}/over/there/v1/`, path)
      }
      for (const path of ["", "docs"]) {
        const page = await get(`${at}/over/there/v1/${path}`)
        assert.strictEqual(page.status, 200)
        assert.match(page.headers["content-type"] ?? "", /^text\/html/)
        assert.match(String(page.headers["content-security-policy"]), /^default-src 'none'; script-src 'self';/)
        assert.notMatch(String(page.headers["content-security-policy"]), /unsafe|\*/)
        assert.notMatch(page.body.toString(), /<script(?! type="module" src="page\/\w+\.js">)|style=|<style| on\w+=/)
        const loaded = Array.from(page.body.toString().matchAll(/(?:src|href)="([^"]+)"/g), ([, file = ""]) => file)
        assert.isAtLeast(loaded.length, 3)
        for (const file of loaded) {
          assert.match(file, /^page\/\w+\.(css|js|svg)$/)
          const url = `${at}/over/there/v1/${file}`
          const plain = await get(url)
          const packed = await get(url, { "accept-encoding": "gzip, br" })
          assert.deepStrictEqual([plain.status, plain.headers["content-encoding"]], [200, undefined])
          assert.deepStrictEqual([packed.status, packed.headers["content-encoding"]], [200, "gzip"])
          assert.isTrue(gunzipSync(packed.body).equals(plain.body), file)
          assert.notMatch(plain.body.toString(), /(import|url)\(?\s*["'(]https?:/, file)
          const again = await get(url, { "if-none-match": String(plain.headers.etag) })
          assert.deepStrictEqual([again.status, again.body.length], [304, 0])
        }
      }
      // The bundle has shorter names in it than the source: none of them is visible here.
      const document = await get(`${at}/over/there/v1/openapi.json`)
      const committed = readFileSync(join(import.meta.dirname, "../../docs/openapi.json"), "utf8")
      assert.deepStrictEqual(
        JSON.parse(document.body.toString()),
        JSON.parse(committed.replaceAll("/api/v1", "/over/there/v1"))
      )
      const refusals = [
        ["GET", "/over/there/v1/page/none.js", 404],
        ["GET", "/over/there/v1/page/..%2f..%2fpackage.json", 404],
        ["GET", "/over", 404],
        ["POST", "/over/there/v1/", 405],
        ["DELETE", "/over/there/v1/page/main.js", 405]
      ] as const
      for (const [method, path, status] of refusals) {
        const answer = await get(at + path, {}, method)
        assert.strictEqual(answer.status, status, `${method} ${path}`)
        assert.isString(JSON.parse(answer.body.toString()).error)
      }
      const head = await get(`${at}/over/there/v1/`, {}, "HEAD")
      assert.deepStrictEqual([head.status, head.body.length], [200, 0])
    } finally {
      await world.close()
    }
  })
})
