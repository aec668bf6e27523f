import { assert, describe, it } from "@effect/vitest"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Context from "effect/Context"
import * as FastCheck from "effect/FastCheck"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import { execFile } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { promisify } from "node:util"
import * as ApiKey from "../../src/master/ApiKey.js"
import * as MasterUrl from "../../src/url/MasterUrl.js"
import * as NodeHost from "../../src/node/process/NodeHost.js"
import * as NodeMaster from "../../src/node/process/NodeMaster.js"
import * as Settings from "../../src/transport/Settings.js"
import { bundle } from "./command/Bundle.js"
import { freePort } from "./command/freePort.js"
import { tunnelKey } from "./command/Nodepass.js"
import { runs } from "../Runs.js"
import * as Spans from "../Spans.js"

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  // oxlint-disable-next-line typescript/no-explicit-any -- the tests check the types of the response themselves
  readonly json: any
}

interface World {
  readonly base: string
  readonly key: string
  /** Sends a request with the key; a body that is not a string is sent as JSON. */
  readonly call: (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>
  /** See `Spans`. */
  readonly spans: () => ReadonlyArray<string>
  /** The lines that the master has logged. */
  readonly logs: () => ReadonlyArray<string>
}

/** A master on a free port, with an empty folder, and its API over HTTP. */
const withMaster = (program: (world: World) => Promise<void>, query = "") => {
  const spans = Spans.make()
  const logs: Array<string> = []
  return Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-master-"))),
      (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true }))
    )
    const config = yield* MasterUrl.parse(`master://127.0.0.1:0?state=${folder}${query}`)
    const services = yield* Layer.build(
      Layer.provide(NodeMaster.layer({ config, version: "1.2.3" }), [
        NodeHost.layerWith({ relay: "portable" }),
        Settings.layer(),
        Logger.replace(
          Logger.defaultLogger,
          Logger.map(Logger.logfmtLogger, (line) => void logs.push(line))
        )
      ])
    )
    const key = Redacted.value(yield* Context.get(services, ApiKey.ApiKey).renew())
    const { address } = Context.get(services, HttpServer.HttpServer)
    const base = `http://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}/api/v1`
    const call: World["call"] = async (method, path, body, headers = {}) => {
      const response = await fetch(path.startsWith("http") ? path : `${base}${path}`, {
        method,
        headers: { "x-api-key": key, ...headers },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) })
      })
      const text = await response.text()
      const isJson = /json/.test(response.headers.get("content-type") ?? "") && text !== ""
      return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined }
    }
    yield* Effect.promise(() => program({ base, key, call, spans: spans.names, logs: () => logs }))
  }).pipe(Effect.scoped, spans.record)
}

const law = (sentence: string, program: (world: World) => Promise<void>, query?: string) =>
  it.live(sentence, () => withMaster(program, query))

/** A forwarding client whose target refuses connections. */
const forwardAt = (port: number) => `client://127.0.0.1:${port}/127.0.0.1:9?mode=1`
const keyId = "********"

interface Operation {
  readonly parameters?: ReadonlyArray<{ readonly name: string; readonly in: string }>
  readonly requestBody?: unknown
  readonly responses: Readonly<Record<string, unknown>>
}

/** Without unpaired surrogates, which cannot be encoded in a URL. */
const wellFormed = (text: string) => text.replaceAll(/\p{Cs}/gu, "")

/** Reads a stream until `found` accepts its text. */
const readUntil = async (response: Response, found: (text: string) => boolean): Promise<string> => {
  assert.isNotNull(response.body)
  const decoder = new TextDecoder()
  let text = ""
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    if (found(text)) return text
  }
  return text
}
const eventsOf = (text: string): ReadonlyArray<{ readonly type: string; readonly instance: { readonly id: string } }> =>
  Array.from(text.matchAll(/^data: (.*)$/gm), ([, data = ""]) => JSON.parse(data))

describe("the master's API", () => {
  law("creates, returns, changes and deletes instances, with every documented field", async ({ call }) => {
    const url = forwardAt(await freePort())
    const made = await call("POST", "/instances", { url, alias: "web" })
    assert.strictEqual(made.status, 201)
    const { id } = made.json
    assert.match(id, /^[0-9a-f]{8}$/)
    assert.deepInclude(made.json, {
      alias: "web",
      type: "client",
      status: "running",
      url: `${url}&log=info`,
      restart: true,
      meta: { peer: { sid: "", type: "", alias: "" }, tags: {} },
      mode: 1,
      ping: 0,
      pool: 0,
      tcps: 0,
      udps: 0,
      tcprx: 0,
      tcptx: 0,
      udprx: 0,
      udptx: 0
    })
    assert.match(made.json.config, /^client:\/\/127\.0\.0\.1:\d+\/127\.0\.0\.1:9\?log=info&tls=0&.*slot=65536/)

    const list = await call("GET", "/instances")
    assert.deepStrictEqual(
      list.json.map((instance: { readonly id: string }) => instance.id),
      [id, keyId]
    )
    assert.strictEqual((await call("GET", `/instances/${id}`)).json.id, id)

    const meta = { peer: { sid: "s1", type: "t", alias: "a" }, tags: { zone: "eu" } }
    const patched = await call("PATCH", `/instances/${id}`, { alias: "api", restart: false, meta })
    assert.strictEqual(patched.status, 200)
    assert.deepInclude(patched.json, { alias: "api", restart: false, meta })

    assert.strictEqual((await call("PATCH", `/instances/${id}`, { action: "stop" })).json.status, "stopped")
    assert.strictEqual((await call("PATCH", `/instances/${id}`, { action: "start" })).json.status, "running")
    const again = await call("PATCH", `/instances/${id}`, { action: "start" })
    assert.deepStrictEqual([again.status, again.headers.get("x-nodepass-note")], [200, "already running"])
    for (const action of ["restart", "reset"]) {
      assert.strictEqual((await call("PATCH", `/instances/${id}`, { action })).json.status, "running")
    }

    const removed = await call("DELETE", `/instances/${id}`)
    assert.deepStrictEqual([removed.status, removed.text], [204, ""])
    assert.strictEqual((await call("GET", `/instances/${id}`)).status, 404)
  })

  law("changes all given fields at once, and ignores extra slashes and unknown headers", async ({ base, call }) => {
    const url = forwardAt(await freePort())
    const headers = {
      "content-type": "text/plain",
      "user-agent": "dash",
      "cache-control": "no-cache",
      authorization: "x"
    }
    const { id } = (await call("POST", "/instances/", { url }, headers)).json
    const meta = { peer: { sid: "s1", type: "t", alias: "a" }, tags: { zone: "eu" } }
    const all = { alias: "😀".repeat(256), restart: false, action: "stop", meta }
    const { json, status } = await call("PATCH", `/instances/${id}/`, all, headers)
    assert.deepStrictEqual(
      [status, json.alias, json.restart, json.status, json.meta],
      [200, all.alias, false, "stopped", meta]
    )
    const part = await call("PATCH", `/instances/${id}`, { meta: { peer: { sid: "s2" } } })
    assert.deepStrictEqual(part.json.meta, { ...meta, peer: { ...meta.peer, sid: "s2" } })
    assert.strictEqual((await call("PATCH", `/instances/${id}`, { meta: { tags: {} } })).json.meta.peer.sid, "s2")
    assert.strictEqual((await call("GET", `//instances//${id}/`)).status, 200)
    assert.strictEqual((await call("DELETE", "/instances/")).status, 405)
    const root = base.replace("/api/v1", "")
    assert.strictEqual((await call("GET", `${root}/health/`)).status, 200)
    assert.strictEqual((await call("GET", `${root}/metrics/`)).status, 200)
  })

  law("keeps each URL as a version, and rolls back to one", async ({ call }) => {
    const url = forwardAt(await freePort())
    const { id } = (await call("POST", "/instances", { url })).json
    const put = await call("PUT", `/instances/${id}`, { url: `${url}&slot=7` })
    assert.deepStrictEqual([put.status, put.json.url], [200, `${url}&slot=7&log=info`])
    assert.strictEqual((await call("PUT", `/instances/${id}`, { url: `${url}&slot=7` })).status, 409)
    const back = await call("POST", `/instances/${id}/rollback`, { version: 1 })
    assert.deepStrictEqual([back.status, back.json.url], [200, `${url}&log=info`])
    const versions = (await call("GET", `/instances/${id}/versions`)).json
    assert.deepStrictEqual(
      versions.map(({ current, version }: { readonly current: boolean; readonly version: number }) => [
        version,
        current
      ]),
      [
        [3, true],
        [2, false],
        [1, false]
      ]
    )
    assert.strictEqual((await call("POST", `/instances/${id}/rollback`, { version: 9 })).status, 404)
  })

  law("makes a change only if the version is one of If-Match, and shows it as ETag", async ({ base, call }) => {
    const url = forwardAt(await freePort())
    const made = await call("POST", "/instances", { url })
    assert.strictEqual(made.headers.get("etag"), '"1"')
    const path = `/instances/${made.json.id}`
    const send = async (method: string, ifMatch: string, body?: unknown, to = path) => {
      const { headers, json, status } = await call(method, to, body, { "if-match": ifMatch })
      return [status, headers.get("etag"), json?.error || undefined]
    }
    const stale = [412, '"1"', `If-Match: instance ${made.json.id} has changed; its version is "1" now`]
    for (const tag of ['"2"', 'W/"1"', '"1.0"', '"a", "b"', '"x,1"', '""']) {
      assert.deepStrictEqual(await send("PUT", tag, { url: `${url}&slot=7` }), stale, tag)
      assert.deepStrictEqual(await send("PATCH", tag, { alias: "x" }), stale, tag)
      assert.deepStrictEqual(await send("POST", tag, { version: 1 }, `${path}/rollback`), stale, tag)
      assert.deepStrictEqual(await send("DELETE", tag), stale, tag)
    }
    for (const bad of ["1", '"1', "'1'", '"1" "2"', '*, "1"', "W/*", 'w/"1"', "", ",", '"1";']) {
      for (const [method, body] of [["PUT", { url }], ["PATCH", { alias: "x" }], ["DELETE"]] as const) {
        const [status, , error] = await send(method, bad, body)
        assert.deepStrictEqual(
          [status, error],
          [400, `If-Match=${bad}: expected *, or versions in quotes with commas between: "3"`]
        )
      }
    }
    assert.deepInclude((await call("GET", path)).json, { alias: "", version: 1 })
    for (const [at, tag] of ['"1"', "*", ' , "9",,W/"3" ,"3"'].entries()) {
      const next = `"${at + 2}"`
      assert.deepStrictEqual(await send("PUT", tag, { url: `${url}&slot=${at + 5}` }), [200, next, undefined])
      for (const action of ["stop", "start"]) {
        assert.deepStrictEqual(await send("PATCH", next, { action, alias: "" }), [200, next, undefined])
      }
      assert.strictEqual((await call("GET", path)).headers.get("etag"), next)
    }
    // Of changes that expect one version, one is made.
    const changes = Array.from({ length: 8 }, (_, at) =>
      at % 2 === 0 ? send("PUT", '"4"', { url: `${url}&slot=${20 + at}` }) : send("PATCH", '"4"', { alias: `b${at}` })
    )
    const all = await Promise.all(changes)
    assert.sameMembers(
      all.map(([status]) => status),
      [200, ...Array.from({ length: 7 }, () => 412)]
    )
    assert.deepStrictEqual(await send("POST", '"5"', { version: 1 }, `${path}/rollback`), [200, '"6"', undefined])
    // Every field that a caller can set has a part in the version, and nothing else.
    const [tags, peer] = [
      { a: "1", b: "2" },
      { sid: "s", type: "t", alias: "p" }
    ]
    const fields = [{ alias: "other" }, { restart: false }, { meta: { tags } }, { meta: { peer } }]
    for (const [at, field] of fields.entries()) {
      assert.deepStrictEqual(await send("PATCH", `"${at + 6}"`, field), [200, `"${at + 7}"`, undefined])
      assert.deepStrictEqual(await send("PATCH", `"${at + 7}"`, field), [200, `"${at + 7}"`, undefined])
    }
    const kept = { action: "reset", meta: { tags: { b: "2", a: "1" } } }
    assert.deepStrictEqual(await send("PATCH", '"10"', kept), [200, '"10"', undefined])
    const urls: ReadonlyArray<{ readonly current: boolean; readonly version: number }> = (
      await call("GET", `${path}/versions`)
    ).json
    assert.deepStrictEqual(
      urls.map(({ current }) => current),
      urls.map((_, at) => at === 0)
    )
    assert.strictEqual(urls[0]?.version, 6)

    assert.strictEqual((await send("DELETE", '"1"', undefined, "/instances/00000000"))[0], 404)
    assert.strictEqual((await send("DELETE", '"9"', undefined, `/instances/${keyId}`))[0], 403)
    const keyTag = (await call("GET", `/instances/${keyId}`)).headers.get("etag") ?? ""
    const other = await send("PATCH", '"other"', { action: "restart" }, `/instances/${keyId}`)
    assert.deepStrictEqual(other.slice(0, 2), [412, keyTag])

    const alias = (await call("GET", "/info")).headers.get("etag") ?? ""
    const [renamed, tag] = await send("POST", alias, { alias: "mäster" }, "/info")
    assert.strictEqual(renamed, 200)
    assert.deepStrictEqual((await send("POST", alias, { alias: "b" }, "/info")).slice(0, 2), [412, tag])
    assert.strictEqual((await call("GET", "/info")).json.alias, "mäster")

    const cors = {
      origin: "http://x",
      "access-control-request-method": "PUT",
      "access-control-request-headers": "if-match"
    }
    const preflight = await fetch(`${base}${path}`, { method: "OPTIONS", headers: cors })
    assert.match(preflight.headers.get("access-control-allow-headers") ?? "", /If-Match/)
    const answer = await call("GET", path, undefined, { origin: "http://x" })
    assert.match(answer.headers.get("access-control-expose-headers") ?? "", /ETag/)
    assert.deepStrictEqual(await send("DELETE", '"10"'), [204, null, undefined])
  })

  law(
    "an instance that cannot listen has status error and the reason, and affects no other instance",
    async ({ call }) => {
      const taken = Net.createServer().listen(0, "127.0.0.1")
      await new Promise((resolve) => taken.once("listening", resolve))
      const address = taken.address()
      const port = typeof address === "object" ? (address?.port ?? 0) : 0
      const healthy = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
      const failed = await call("POST", "/instances", { url: forwardAt(port) })
      assert.strictEqual(failed.status, 201)
      assert.strictEqual(failed.json.status, "error")
      assert.include(failed.json.error, "address already in use")
      assert.strictEqual((await call("GET", `/instances/${healthy.id}`)).json.status, "running")
      const health = await call("GET", "/health")
      assert.deepStrictEqual(
        [health.status, health.json.ready],
        [503, { ok: false, reasons: [`instance ${failed.json.id} is in error: ${failed.json.error}`] }]
      )
      await call("PATCH", `/instances/${failed.json.id}`, { action: "stop" })
      assert.strictEqual((await call("GET", "/health")).status, 200)
      taken.close()
    }
  )

  describe("rejects, with one sentence that names the field", () => {
    law("invalid requests", async ({ call }) => {
      const url = forwardAt(await freePort())
      const { id } = (await call("POST", "/instances", { url })).json
      const rows: ReadonlyArray<readonly [string, string, unknown, number, RegExp]> = [
        ["POST", "/instances", {}, 400, /^url: is missing$/],
        ["POST", "/instances", { url: 7 }, 400, /^url: /],
        ["POST", "/instances", { url, colour: "red" }, 400, /^colour: unknown field$/],
        ["POST", "/instances", "{", 400, /^body: expected JSON/],
        ["POST", "/instances", "[1]", 400, /^body: expected an object/],
        ["POST", "/instances", "", 400, /^body: /],
        ["POST", "/instances", { url: "ftp://x" }, 400, /^scheme=ftp: expected server or client/],
        ["POST", "/instances", { url: "master://h:1" }, 400, /^scheme=master: expected/],
        ["POST", "/instances", { url: `${url}&slot=-1` }, 400, /^slot=-1: expected a whole number/],
        ["POST", "/instances", { url, alias: "x".repeat(70_000) }, 400, /^body of \d+ bytes: expected at most/],
        ["PATCH", `/instances/${id}`, { action: "explode" }, 400, /^action: /],
        ["PATCH", `/instances/${id}`, { restart: "yes" }, 400, /^restart: /],
        ["PATCH", `/instances/${id}`, { meta: { tags: { a: 1 } } }, 400, /^meta\.tags/],
        ["PATCH", `/instances/${id}`, { meta: null }, 400, /^meta: expected an object$/],
        ["PATCH", `/instances/${id}`, { meta: { peer: 1 } }, 400, /^meta\.peer: expected an object$/],
        ["PATCH", `/instances/${id}`, { meta: { tags: [] } }, 400, /^meta\.tags: expected an object$/],
        ["PATCH", `/instances/${id}`, { meta: { peer: { name: "x" } } }, 400, /^meta\.peer\.name: unknown field/],
        ["PATCH", `/instances/${id}`, { alias: "a\u0007" }, 400, /^alias: expected a text of at most 256 characters/],
        ["PATCH", `/instances/${id}`, '{"alias":"\\ud800"}', 400, /^alias: expected a text of at most 256 characters/],
        [
          "PATCH",
          `/instances/${id}`,
          '{"meta":{"tags":{"__proto__":"x"}}}',
          400,
          /^meta\.tags\.__proto__: expected a name/
        ],
        ["PATCH", `/instances/${id}`, '{"meta":{"__proto__":{}}}', 400, /^meta\.__proto__: unknown field$/],
        ["POST", "/instances", '{"url":"x","__proto__":{}}', 400, /^__proto__: unknown field$/],
        // Names that do not fit are refused, not left out.
        ["PATCH", `/instances/${id}`, { meta: { tags: { "a\u0007": "x" } } }, 400, /^meta\.tags\.a.: expected a name/],
        ["PATCH", `/instances/${id}`, { meta: { tags: { ["x".repeat(257)]: "x" } } }, 400, /^meta\.tags\.x+: expected/],
        ["POST", `/instances/${id}/rollback`, { version: 1e300 }, 400, /^version: expected a whole number from 1$/],
        ["PUT", `/instances/${id}`, { url: "" }, 400, /^url is missing: expected server:/],
        ["GET", "/tcping", undefined, 400, /^target: is missing$/],
        ["GET", "/tcping?target=nowhere", undefined, 400, /^target=nowhere: expected host:port$/],
        ["GET", `/instances/${id}/traffic?step=0`, undefined, 400, /^step: /],
        ["GET", `/instances/${id}/logs?follow=maybe`, undefined, 400, /^follow: /],
        ["GET", "/instances/ffffffff", undefined, 404, /^instance ffffffff: not found$/],
        ["DELETE", "/instances/ffffffff", undefined, 404, /^instance ffffffff: not found$/],
        ["GET", "/nowhere", undefined, 404, /^path .*nowhere: not found$/],
        ["DELETE", "/instances", undefined, 405, /^method DELETE: expected one of GET, POST$/],
        ["PUT", `/instances/${keyId}`, { url }, 403, /the API key cannot be given a URL$/],
        ["DELETE", `/instances/${keyId}`, undefined, 403, /the API key cannot be deleted$/],
        ["PATCH", `/instances/${keyId}`, { alias: "mine" }, 400, /^action: expected restart/]
      ]
      for (const [method, path, body, status, sentence] of rows) {
        const answer = await call(method, path, body)
        const shown = `${method} ${path} ${JSON.stringify(body)?.slice(0, 60)} → ${answer.text}`
        assert.strictEqual(answer.status, status, shown)
        assert.deepStrictEqual(Object.keys(answer.json), ["error"], shown)
        assert.match(answer.json.error, sentence, shown)
        assert.strictEqual(answer.headers.get("access-control-allow-origin"), "*", shown)
      }
    })
  })

  law("refuses bidirectional controls in names", async ({ call }) => {
    const { id } = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
    const path = `/instances/${id}`
    const controls = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    for (const [at, control] of Array.from(controls).entries()) {
      const name = `a${control}b`
      const attempts = [
        ["POST", "/info", { alias: name }, "alias"],
        ["POST", "/instances", { url: "client://h:1/h:2", alias: name }, "alias"],
        ["PATCH", path, { alias: name }, "alias"],
        ["PATCH", path, { meta: { peer: { sid: name } } }, "meta.peer.sid"],
        ["PATCH", path, { meta: { peer: { type: name } } }, "meta.peer.type"],
        ["PATCH", path, { meta: { peer: { alias: name } } }, "meta.peer.alias"],
        ["PATCH", path, { meta: { tags: { zone: name } } }, "meta.tags.zone"],
        ["PATCH", path, { meta: { tags: { [name]: "eu" } } }, `meta.tags.${name}`]
      ] as const
      // Every field refuses the first control, and some field each of the others.
      for (const [method, path_, body, field] of attempts.filter((_, field) => at === 0 || field === at % 8)) {
        const { json, status } = await call(method, path_, body)
        const shown = `${method} ${field} ${control.charCodeAt(0).toString(16)}`
        assert.strictEqual(status, 400, shown)
        assert.isTrue(json.error.startsWith(`${field}: expected a `), `${shown}: ${json.error}`)
        assert.include(json.error, "without control characters or bidirectional controls", shown)
      }
    }
    // Other scripts and joined emoji are names.
    const alias = "שלום 👩‍💻 سلام"
    assert.strictEqual((await call("PATCH", path, { alias })).json.alias, alias)
  })

  law("responds to request targets that are not a path with 400, and logs nothing", async ({ base, key, logs }) => {
    const port = Number(new URL(base).port)
    const statusOf = async (method: string, target: string, headers = "") => {
      const socket = Net.connect(port, "127.0.0.1")
      socket.write(
        `${method} ${target} HTTP/1.1\r\nHost: x\r\n${headers}Content-Length: 0\r\nConnection: close\r\n\r\n`
      )
      let text = ""
      for await (const part of socket) text += String(part)
      return Number(text.split(" ")[1])
    }
    const bad = [
      "//",
      "///",
      "/\\",
      "http://",
      "http:///",
      "http://[",
      "http://:/x",
      "//[/x",
      "//:x/y",
      "ftp://x/y",
      "*",
      "x"
    ]
    for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]) {
      for (const target of bad) assert.strictEqual(await statusOf(method, target), 400, `${method} ${target}`)
      for (const id of ["%", "%zz", "%c3%28", "%00", "..%2f..", "%e2%80%ae", "a".repeat(8000)]) {
        const status = await statusOf(method, `/api/v1/instances/${id}`, `X-API-Key: ${key}\r\n`)
        assert.isTrue(status >= 400 && status < 500, `${method} ${id.slice(0, 10)}: ${status}`)
      }
    }
    assert.strictEqual(await statusOf("GET", "http://anything:1/health"), 200)
    assert.strictEqual(await statusOf("GET", "/api//v1//health/"), 200)
    assert.strictEqual(await statusOf("POST", "//api/v1/events/ticket", `X-API-Key: ${key}\r\n`), 201)
    assert.strictEqual(await statusOf("POST", "http://x/api/v1/events/ticket", `X-API-Key: ${key}\r\n`), 201)
    assert.strictEqual(await statusOf("GET", "/health", `X: ${"a".repeat(20_000)}\r\n`), 431)
    assert.deepStrictEqual(
      logs().filter((line) => line.includes("internal error")),
      []
    )
  })

  law("responds to a request whose body is too large, with and without Content-Length", async ({ base, key }) => {
    const sent = 20_000_000
    for (const headers of [{ "content-length": String(sent) }, { "transfer-encoding": "chunked" }]) {
      const request = Http.request(`${base}/instances`, { method: "POST", headers: { ...headers, "x-api-key": key } })
      request.on("error", () => {})
      request.write(Buffer.alloc(sent, "a"))
      request.end()
      const [response]: ReadonlyArray<Http.IncomingMessage> = await once(request, "response")
      assert.strictEqual(response?.statusCode, 400)
      let text = ""
      for await (const part of response ?? []) text += String(part)
      assert.match(text, /^{"error":"body of .*: expected at most 65536"}$/)
    }
  })

  law(
    "requires the key, limits the rate of wrong keys but never that of the right one, and renews it",
    async ({ base, call, key }) => {
      const without = await call("GET", "/instances", undefined, { "x-api-key": "" })
      assert.deepStrictEqual([without.status, without.json], [401, { error: "Unauthorized: API key required" }])
      const wrong = () => call("GET", "/instances", undefined, { "x-api-key": "0".repeat(32) })
      const first = await wrong()
      assert.deepStrictEqual([first.status, first.json], [401, { error: "Unauthorized: Invalid API key" }])

      const entry = (await call("GET", `/instances/${keyId}`)).json
      assert.strictEqual(entry.url, key)
      const renew = (headers: Record<string, string>) =>
        call("PATCH", `/instances/${keyId}`, { action: "restart" }, { "if-match": `"${entry.version}"`, ...headers })
      const renewal = await renew({})
      const renewed = renewal.json.url
      assert.notStrictEqual(renewal.json.version, entry.version)
      assert.strictEqual(renewal.headers.get("etag"), `"${renewal.json.version}"`)
      const stale = await renew({ "x-api-key": renewed })
      assert.deepStrictEqual([stale.status, stale.headers.get("etag")], [412, renewal.headers.get("etag")])
      assert.match(renewed, /^[0-9a-f]{32}$/)
      assert.notStrictEqual(renewed, key)
      assert.strictEqual((await call("GET", "/info")).status, 401)
      assert.strictEqual((await call("GET", "/info", undefined, { "x-api-key": renewed })).status, 200)

      let last = await wrong()
      for (let tries = 0; tries < 12; tries++) last = await wrong()
      assert.strictEqual(last.status, 429)
      assert.match(last.json.error, /^too many wrong API keys from this address/)
      assert.match(last.headers.get("retry-after") ?? "", /^[1-3]$/)
      // Everybody behind a proxy has the address of the proxy.
      const right = await call("POST", "/events/ticket", undefined, { "x-api-key": renewed })
      assert.strictEqual(right.status, 201)
      const stream = await fetch(`${base}/events?ticket=${right.json.ticket}`)
      assert.strictEqual(stream.status, 200)
      await stream.body?.cancel()
      // A right key in between does not forget the wrong ones; a wrong ticket is like a wrong key.
      const get = (path: string, headers = {}) => fetch(`${base}${path}`, { headers })
      for (const send of [
        wrong,
        () => get(`/events?ticket=${right.json.ticket}`),
        () => get("/metrics", { "x-api-key": "0" })
      ]) {
        let answer = await send()
        // One more attempt is allowed every 3 s.
        for (let tries = 0; answer.status !== 429 && tries < 4; tries++) answer = await send()
        assert.strictEqual(answer.status, 429)
        assert.match(answer.headers.get("retry-after") ?? "", /^[1-3]$/)
      }
      assert.strictEqual((await fetch(`${base}/metrics`, { headers: { "x-api-key": renewed } })).status, 200)
      // Endpoints without authentication are not limited.
      assert.strictEqual((await fetch(`${base}/openapi.json`)).status, 200)
    }
  )

  law("returns its info, its health and its metrics for Prometheus", async ({ base, call }) => {
    const { json: info } = await call("GET", "/info")
    assert.match(info.mid, /^[0-9a-f]{16}$/)
    assert.deepInclude(info, { alias: "", ver: "1.2.3", log: "info", tls: "0", crt: "", key: "" })
    const numbers =
      "cpu mem_total mem_used mem_free swap_total swap_used swap_free netrx nettx diskr diskw sysup uptime"
    for (const name of numbers.split(" ")) assert.isNumber(info[name], name)
    for (const name of ["os", "arch", "name"]) assert.isString(info[name], name)
    assert.strictEqual((await call("POST", "/info", { alias: "local" })).json.alias, "local")

    const root = base.replace("/api/v1", "")
    const health = await fetch(`${root}/health`)
    assert.deepStrictEqual(
      [health.status, ((await health.json()) as { readonly ready: { readonly ok: boolean } }).ready.ok],
      [200, true]
    )
    assert.strictEqual((await fetch(`${root}/metrics`)).status, 401)
    const metrics = await call("GET", `${root}/metrics`)
    assert.match(metrics.text, /^# TYPE nodepass_/m)
    const document = (await call("GET", "/openapi.json")).json
    assert.include(Object.keys(document.paths).join(), "/api/v1/instances")
    const docs = await call("GET", "/docs", undefined, { "x-api-key": "" })
    assert.deepStrictEqual([docs.status, /text\/html/.test(docs.headers.get("content-type") ?? "")], [200, true])
    assert.notMatch(docs.text, /(src|href)="https?:/)

    const reached = await call("GET", `/tcping?target=${new URL(base).host}`)
    assert.deepInclude(reached.json, { connected: true, error: null })
    const refused = await call("GET", "/tcping?target=127.0.0.1:1")
    assert.deepInclude(refused.json, { connected: false, error: "connect 127.0.0.1:1: connection refused" })
  })

  law(
    "serves its metrics without the key with metrics=open",
    async ({ base }) => {
      assert.strictEqual((await fetch(`${base}/metrics`)).status, 200)
    },
    "&metrics=open"
  )

  law("serves the document docs/openapi.json", async ({ call }) => {
    const file = Path.join(import.meta.dirname, "../../docs/openapi.json")
    const { json } = await call("GET", "/openapi.json")
    if (process.env["NODEPASS_WRITE"] !== undefined) Fs.writeFileSync(file, `${JSON.stringify(json, null, 2)}\n`)
    assert.deepStrictEqual(JSON.parse(Fs.readFileSync(file, "utf8")), json)
  })

  law("can be called by MasterClient as docs/master.md shows", async ({ base, key }) => {
    const docs = Fs.readFileSync(Path.join(import.meta.dirname, "../../docs/master.md"), "utf8")
    const [, snippet = ""] = /```ts\n([\s\S]*?)```/.exec(docs) ?? []
    // Below the root, so that the package finds itself.
    const folder = Fs.mkdtempSync(Path.join(import.meta.dirname, "../../.dist-snippet-"))
    try {
      const file = Path.join(folder, "client.ts")
      const port = await freePort()
      const own = snippet.replace("http://127.0.0.1:9090/api/v1", base).replace('"KEY"', `"${key}"`)
      Fs.writeFileSync(file, own.replace(":8080", `:${port}`))
      const program = Path.join(folder, "client.mjs")
      await bundle(file, program)
      const { stdout } = await promisify(execFile)(process.execPath, [program])
      assert.strictEqual(stdout, "running client\n")
    } finally {
      Fs.rmSync(folder, { recursive: true })
    }
  })

  law(
    "has a span for each request, by method and route, with those of what the request does",
    async ({ call, spans }) => {
      const { id } = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
      await call("PATCH", `/instances/${id}`, { action: "stop" })
      await call("GET", "/health")
      await call("GET", "/nowhere")
      for (const path of [
        "POST /api/v1/instances > Master.create",
        "POST /api/v1/instances > Master.create > InstanceStore.insert",
        "POST /api/v1/instances > Master.create > ManagedTunnel.start",
        "PATCH /api/v1/instances/:id > Master.patch > ManagedTunnel.stop",
        "GET /api/v1/health",
        "GET"
      ]) {
        assert.include(spans(), path)
      }
    }
  )

  law("allows requests from browsers of any origin", async ({ base }) => {
    const headers = { origin: "https://dash.example", "access-control-request-method": "PATCH" }
    const { headers: allowed, status } = await fetch(`${base}/instances`, { method: "OPTIONS", headers })
    assert.strictEqual(status, 204)
    assert.strictEqual(allowed.get("access-control-allow-origin"), "*")
    assert.match(allowed.get("access-control-allow-methods") ?? "", /PATCH/)
    const names = (allowed.get("access-control-allow-headers") ?? "").toLowerCase()
    for (const name of ["content-type", "authorization", "x-api-key", "cache-control", "last-event-id"]) {
      assert.include(names, name)
    }
  })

  law("streams events, continues after an interruption, and accepts a ticket once", async ({ base, call, key }) => {
    const { id } = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
    const open = (headers: Record<string, string>, query = "") => fetch(`${base}/events${query}`, { headers })
    const first = await open({ "x-api-key": key })
    assert.match(first.headers.get("content-type") ?? "", /^text\/event-stream/)
    const greeting = await readUntil(first, (text) => eventsOf(text).length >= 2)
    assert.match(greeting, /^retry: 3000\n\nevent: instance\n/)
    assert.deepStrictEqual(
      eventsOf(greeting).map(({ instance, type }) => [type, instance.id]),
      [
        ["initial", id],
        ["initial", keyId]
      ]
    )
    const [, lastId = ""] = /^id: (.*)$/m.exec(greeting) ?? []
    const other = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json.id
    await call("DELETE", `/instances/${other}`)
    const since = await open({ "x-api-key": key, "last-event-id": lastId })
    const replayed = await readUntil(since, (text) => text.includes('"delete"'))
    const types = eventsOf(replayed).filter(({ instance }) => instance.id === other)
    assert.deepStrictEqual([types[0]?.type, types.at(-1)?.type], ["create", "delete"])
    assert.notInclude(
      eventsOf(replayed).map(({ type }) => type),
      "initial"
    )

    const { ticket } = (await call("POST", "/events/ticket")).json
    const admitted = await open({}, `/?ticket=${ticket}`)
    assert.strictEqual(admitted.status, 200)
    await readUntil(admitted, (text) => text.includes("initial"))
    assert.strictEqual((await open({}, `?ticket=${ticket}`)).status, 401)
  })

  law("returns the log of an instance, and follows it", async ({ base, call, key }) => {
    const { id } = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
    assert.match((await call("GET", `/instances/${id}/logs`)).text, /forwarding/)
    const following = await fetch(`${base}/instances/${id}/logs?follow=true`, { headers: { "x-api-key": key } })
    const followed = readUntil(following, (text) => text.split("forwarding").length > 2)
    await call("PATCH", `/instances/${id}`, { action: "restart" })
    assert.match(await followed, /forwarding[\s\S]*forwarding/)
    assert.isArray((await call("GET", `/instances/${id}/traffic`)).json.points)
  })

  law("responds to random requests with a documented status and body", async ({ call }) => {
    const { id } = (await call("POST", "/instances", { url: forwardAt(await freePort()) })).json
    const { paths } = (await call("GET", "/openapi.json")).json
    const operations = Object.entries<Record<string, Operation>>(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        method: method.toUpperCase(),
        path: path.replace("/api/v1", ""),
        ...operation
      }))
    )
    const word = FastCheck.oneof(
      FastCheck.fullUnicodeString(),
      FastCheck.constantFrom("true", "-1", "1e9", "127.0.0.1:1", "\0", "%", "../..", "9".repeat(400))
    )
    const fields = FastCheck.dictionary(
      FastCheck.oneof(FastCheck.constantFrom("url", "alias", "action", "meta", "restart", "version"), word),
      FastCheck.oneof(
        FastCheck.jsonValue(),
        word,
        FastCheck.constantFrom("stop", "start", "reset", { tags: { a: "b" } })
      )
    )
    const body = FastCheck.oneof(
      FastCheck.json(),
      word,
      fields.map((value) => JSON.stringify(value))
    )
    const request = FastCheck.record({
      operation: FastCheck.constantFrom(...operations.filter(({ path }) => !/events$|logs$/.test(path))),
      name: FastCheck.oneof(FastCheck.constantFrom(id, keyId), word),
      words: FastCheck.array(word, { minLength: 3, maxLength: 3 }),
      body
    })
    await FastCheck.assert(
      FastCheck.asyncProperty(request, async ({ body, name, operation, words }) => {
        const { method, parameters, path, requestBody, responses } = operation
        const query = (parameters ?? []).flatMap((parameter, at) =>
          parameter.in === "query" ? [`${parameter.name}=${encodeURIComponent(wellFormed(words[at] ?? ""))}`] : []
        )
        const full = `${path.replace("{id}", encodeURIComponent(wellFormed(name)))}?${query.join("&")}`
        const answer = await call(method, full, requestBody === undefined ? undefined : body)
        const shown = `${method} ${full} ${body} → ${answer.status} ${answer.text.slice(0, 300)}`
        // An empty id, `.` and `..` lead to other paths.
        const allowed = ["", ".", ".."].includes(name)
          ? [...Object.keys(responses), "404", "405", "200"]
          : Object.keys(responses)
        assert.include(allowed, String(answer.status), shown)
        if (answer.status < 400) return
        assert.deepStrictEqual(Object.keys(answer.json), ["error"], shown)
        assert.match(answer.json.error, /^[^\n]{1,600}$/, shown)
      }),
      { numRuns: runs(70, 400) }
    )
    assert.strictEqual((await call("GET", "/health")).status, 200)
  })

  law("starts many instances at once, and still responds", async ({ call }) => {
    const url = `client://${tunnelKey}@127.0.0.1:${await freePort()}/127.0.0.1:9?mode=2`
    const count = runs(30, 100)
    const made = await Promise.all(Array.from({ length: count }, () => call("POST", "/instances", { url })))
    assert.isTrue(made.every(({ json, status }) => status === 201 && json.status === "running"))
    assert.strictEqual((await call("GET", "/instances")).json.length, count + 1)
  })
})
