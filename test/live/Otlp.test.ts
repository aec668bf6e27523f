import { assert, describe, it } from "@effect/vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Os from "node:os"
import * as Path from "node:path"
import { makeWorld } from "./command/Nodepass.js"

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue: string }
}

interface Metric {
  readonly name: string
  readonly sum?: { readonly isMonotonic: boolean; readonly dataPoints: ReadonlyArray<Point> }
  readonly gauge?: { readonly dataPoints: ReadonlyArray<Point> }
}

interface Point {
  readonly attributes: ReadonlyArray<Attribute>
  readonly timeUnixNano: string
  readonly asDouble: number
}

interface Message {
  readonly resourceMetrics: ReadonlyArray<{
    readonly resource: { readonly attributes: ReadonlyArray<Attribute> }
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<Metric> }>
  }>
}

const record = (attributes: ReadonlyArray<Attribute>) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue]))

/** Takes what is sent to it, and answers with the status. */
const collector = async () => {
  const seen: Array<{ readonly request: Http.IncomingMessage; readonly message: Message }> = []
  const server = Http.createServer((request, response) => {
    let text = ""
    request
      .setEncoding("utf8")
      .on("data", (part: string) => (text += part))
      .on("end", () => {
        seen.push({ request, message: JSON.parse(text) })
        response.writeHead(state.status).end("{}")
        server.emit("seen")
      })
  })
  const state = { status: 200 }
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  return {
    state,
    port: typeof address === "object" ? (address?.port ?? 0) : 0,
    /** The next one that is sent, or one sent already, and forgets it. */
    next: async () => {
      while (seen.length === 0) await once(server, "seen")
      return seen.shift()
    },
    close: () => server.close().closeAllConnections()
  }
}

describe("OpenTelemetry", () => {
  it("gets the metrics of a master by the standard variables, and a collector that is away is one line", async () => {
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-otlp-"))
    const { close, next, port: collecting, state } = await collector()
    try {
      const port = await world.freePort()
      const master = world.start([`master://127.0.0.1:${port}?state=${folder}`], {
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collecting}/`,
        OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x,team=net",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=test",
        OTEL_SERVICE_NAME: "edge",
        OTEL_METRIC_EXPORT_INTERVAL: "100"
      })
      const [, key = ""] = /^API key: (\w+)/.exec(await master.line(/^API key: /)) ?? []
      const url = `client://127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1&log=none`
      const made = await fetch(`http://127.0.0.1:${port}/api/v1/instances`, {
        method: "POST",
        headers: { "x-api-key": key },
        body: JSON.stringify({ url, alias: "web" })
      })
      assert.strictEqual(made.status, 201)

      for (;;) {
        const { message, request } = (await next()) ?? assert.fail()
        assert.deepStrictEqual([request.method, request.url], ["POST", "/v1/metrics"])
        const { authorization, "content-type": type, team } = request.headers
        assert.deepStrictEqual([type, authorization, team], ["application/json", "Bearer x", "net"])
        const [{ resource, scopeMetrics } = assert.fail()] = message.resourceMetrics
        assert.deepInclude(record(resource.attributes), {
          "service.name": "edge",
          "deployment.environment": "test",
          "host.name": Os.hostname()
        })
        const metrics = scopeMetrics.flatMap(({ metrics }) => metrics)
        const up = metrics.find(({ name }) => name === "nodepass_instance_up")?.gauge?.dataPoints ?? []
        const [first] = up
        if (first === undefined) continue
        assert.deepInclude(record(first.attributes), { alias: "web", type: "client" })
        assert.strictEqual(first.asDouble, 1)
        assert.match(first.timeUnixNano, /^\d{19}$/)
        const bytes = metrics.find(({ name }) => name === "nodepass_instance_bytes_total")?.sum
        assert.deepStrictEqual([bytes?.isMonotonic, bytes?.dataPoints.length], [true, 4])
        break
      }

      state.status = 503
      await master.line(/ WARN .*the collector of metrics is away: it answers 503/)
      for (let count = 0; count < 3; count++) await next()
      assert.lengthOf(master.log().match(/the collector of metrics is away/g) ?? [], 1)
      assert.strictEqual(await master.stop(), 0)
    } finally {
      world.close()
      close()
      Fs.rmSync(folder, { recursive: true })
    }
  })
})
