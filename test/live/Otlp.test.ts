import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import { apiKeyOf, answering, ask, makeWorld, tunnelOf, type World } from "./command/Nodepass.js"
import * as Lag from "../Lag.js"

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: number }
}

interface Point {
  readonly attributes: ReadonlyArray<Attribute>
  readonly timeUnixNano: string
  readonly asDouble: number
}

interface Metric {
  readonly name: string
  readonly sum?: { readonly isMonotonic: boolean; readonly dataPoints: ReadonlyArray<Point> }
  readonly gauge?: { readonly dataPoints: ReadonlyArray<Point> }
}

interface LogRecord {
  readonly body: { readonly stringValue: string }
  readonly severityText: string
  readonly attributes: ReadonlyArray<Attribute>
}

interface Span {
  readonly name: string
  readonly attributes: ReadonlyArray<Attribute>
  readonly parentSpanId?: string
  /** 1 is `Ok`. */
  readonly status: { readonly code: number }
}

interface Resource {
  readonly attributes: ReadonlyArray<Attribute>
}

/** The body of any of the three requests. */
interface Body {
  readonly resourceMetrics?: ReadonlyArray<{
    readonly resource: Resource
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<Metric> }>
  }>
  readonly resourceLogs?: ReadonlyArray<{
    readonly resource: Resource
    readonly scopeLogs: ReadonlyArray<{ readonly logRecords: ReadonlyArray<LogRecord> }>
  }>
  readonly resourceSpans?: ReadonlyArray<{
    readonly resource: Resource
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }>
  }>
}

interface Received {
  readonly path: string
  readonly headers: Http.IncomingHttpHeaders
  readonly body: Body
}

const record = (attributes: ReadonlyArray<Attribute>) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]))

const metricsOf = ({ body }: Received) =>
  (body.resourceMetrics ?? []).flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
const logsOf = ({ body }: Received) =>
  (body.resourceLogs ?? []).flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords))

const spansOf = ({ body }: Received) =>
  (body.resourceSpans ?? []).flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))

/** The points of a metric, each as its labels and its value. */
const pointsOf = (received: Received, name: string): ReadonlyArray<Readonly<Record<string, unknown>>> => {
  const metric = metricsOf(received).find((metric) => metric.name === name)
  const points = metric?.sum?.dataPoints ?? metric?.gauge?.dataPoints ?? []
  return points.map(({ asDouble, attributes }) => ({ ...record(attributes), value: asDouble }))
}

/** A collector that keeps what is sent to it and responds with `status`. */
const makeCollector = async (world: World) => {
  const received: Array<Received> = []
  const state = { status: 200 }
  const server = Http.createServer((request, response) => {
    let text = ""
    request
      .setEncoding("utf8")
      .on("data", (part: string) => (text += part))
      .on("end", () => {
        received.push({ path: request.url ?? "", headers: request.headers, body: JSON.parse(text) as Body })
        response.writeHead(state.status).end("{}")
        server.emit("received")
      })
  })
  world.own(server, (server) => server.close().closeAllConnections())
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  const port = typeof address === "object" ? (address?.port ?? 0) : 0
  let read = 0
  return {
    state,
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}/`,
      OTEL_METRIC_EXPORT_INTERVAL: "100",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      OTEL_BLRP_SCHEDULE_DELAY: "100",
      NP_REPORT_INTERVAL: "100ms"
    },
    /** Waits for the next request that was not read yet and for which `choose` returns something. */
    next: async <A>(choose: (received: Received) => A | undefined): Promise<A> => {
      for (;;) {
        while (received.length <= read) await once(server, "received")
        const next = received[read++]
        const found = next === undefined ? undefined : choose(next)
        if (found !== undefined) return found
      }
    },
    received
  }
}

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

describe("an OpenTelemetry collector", () => {
  it("receives a trace of each handshake, session and visitor, from both sides", async () => {
    const { env, next } = await makeCollector(world)
    const { port: target } = await world.listen(answering)
    const { client, port, server } = await Here.tunnel(world, { target, receiver: "server", env })
    assert.strictEqual(String(await ask(world, port, "hello")), "re:hello")
    const missing = new Map([
      ["ClientHandshake.open", "server"],
      ["ClientSession.open", "server"],
      ["Handshake.challenge", "peer"],
      ["Server.startSession", "client"],
      ["Router.open", "visitor"],
      ["Targets.dial", "visitor"]
    ])
    while (missing.size > 0) {
      for (const { attributes, name, parentSpanId, status } of await next(spansOf)) {
        const attribute = missing.get(name)
        if (attribute === undefined) continue
        missing.delete(name)
        assert.deepStrictEqual([parentSpanId, status.code], [undefined, 1])
        assert.match(String(record(attributes)[attribute]), /^127\.0\.0\.1:\d+$/)
      }
    }
    assert.deepStrictEqual([await client.stop(), await server.stop()], [0, 0])
  })

  it("receives metrics and logs of a server and a client by the standard variables", async () => {
    const { env, next } = await makeCollector(world)
    const { port: target } = await world.listen(answering)
    const standard = {
      ...env,
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x,team=net",
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=test%20bed,service.name=ignored",
      OTEL_SERVICE_NAME: "edge"
    }
    const here = Here.starter(world)
    const { client, port, server } = await tunnelOf(
      { target, receiver: "server", env: standard },
      { server: world.start, client: (args) => here(args) }
    )
    assert.strictEqual(String(await ask(world, port, "hello")), "re:hello")

    const bytes = await next((received) => {
      const points = pointsOf(received, "nodepass_instance_bytes_total")
      const sent = points.find(
        (point) => point.type === "server" && point.protocol === "tcp" && point.direction === "tx" && point.value === 5
      )
      return sent === undefined ? undefined : { received, points }
    })
    assert.strictEqual(bytes.points.length, 4)
    assert.deepStrictEqual(
      pointsOf(bytes.received, "nodepass_info").map(({ value }) => value),
      [1]
    )
    assert.strictEqual(bytes.received.path, "/v1/metrics")
    const { authorization, "content-type": type, team } = bytes.received.headers
    assert.deepStrictEqual([type, authorization, team], ["application/json", "Bearer x", "net"])
    const attributes = bytes.received.body.resourceMetrics?.[0]?.resource.attributes ?? []
    assert.deepInclude(record(attributes), {
      "service.name": "edge",
      "deployment.environment": "test bed",
      "host.name": Os.hostname(),
      "process.pid": server.pid
    })
    assert.lengthOf(
      attributes.filter(({ key }) => key === "service.name"),
      1
    )

    // What is left is sent at the end: the last line is one of the log.
    assert.deepStrictEqual([await client.stop(), await server.stop()], [0, 0])
    const last = await next((received) => logsOf(received).find(({ body }) => body.stringValue === "stopped"))
    assert.strictEqual(last.severityText, "INFO")
  })

  it("receives the metrics of a master's instances, and none of one that is deleted", async () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-otlp-"))
    try {
      const { env, next } = await makeCollector(world)
      const port = await world.freePort()
      const master = world.start([`master://127.0.0.1:${port}?state=${folder}`], env)
      const key = await apiKeyOf(master, port)
      const url = `client://127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1&log=none`
      const call = (method: string, path: string, body?: unknown) =>
        fetch(`http://127.0.0.1:${port}/api/v1${path}`, {
          method,
          headers: { "x-api-key": key },
          ...(body === undefined ? {} : { body: JSON.stringify(body) })
        })
      const created = await call("POST", "/instances", { url, alias: "web" })
      assert.strictEqual(created.status, 201)
      const { id } = (await created.json()) as { readonly id: string }

      const up = (received: Received) => pointsOf(received, "nodepass_instance_up")
      const [first] = await next((received) => (up(received).length > 0 ? up(received) : undefined))
      assert.deepStrictEqual(first, { id, alias: "web", type: "client", value: 1 })
      assert.strictEqual((await call("PATCH", `/instances/${id}`, { alias: "site" })).status, 200)
      await next((received) => up(received).find(({ alias }) => alias === "site"))
      assert.strictEqual((await call("DELETE", `/instances/${id}`)).status, 204)
      await next((received) => (metricsOf(received).length > 0 && up(received).length === 0 ? true : undefined))
      assert.strictEqual(await master.stop(), 0)
    } finally {
      Fs.rmSync(folder, { recursive: true })
    }
  })

  it("receives the metrics of the demo", async () => {
    const { env, next } = await makeCollector(world)
    const demo = Here.starter(world)(["demo"], env)
    const types = await next((received) => {
      // Those of the tests above are down.
      const up = pointsOf(received, "nodepass_instance_up").filter(({ value }) => value === 1)
      const types = up.map(({ type }) => type)
      return types.length === 2 ? types : undefined
    })
    assert.sameMembers(types, ["client", "server"])
    assert.strictEqual(await demo.stop(), 0)
  })

  it("that cannot be reached is one log line, and does not hold up the stop", async () => {
    const { env, next, received, state } = await makeCollector(world)
    state.status = 503
    const url = `client://127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1`
    const forward = Here.starter(world)([url], env)
    await forward.line(/ WARN .*cannot export telemetry: status 503; trying again/)
    while (received.length < 3) await next(() => true)
    const lag = Lag.watch()
    const start = performance.now()
    assert.strictEqual(await forward.stop(), 0)
    assert.isBelow(performance.now() - start, 4000 + lag())
    assert.lengthOf(forward.log().match(/cannot export telemetry/g) ?? [], 1)
  })

  it("receives nothing when a variable is wrong, and one log line has the reason", async () => {
    const url = `client://127.0.0.1:${await world.freePort()}/127.0.0.1:9?mode=1`
    const forward = Here.starter(world)([url], {
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4317",
      OTEL_EXPORTER_OTLP_PROTOCOL: "grpc"
    })
    const line = await forward.line(/telemetry/)
    assert.match(
      line,
      /WARN .*telemetry is not exported: OTEL_EXPORTER_OTLP_PROTOCOL: expected http\/json or http\/protobuf$/
    )
    await forward.line(/forwarding/)
    assert.strictEqual(await forward.stop(), 0)
  })
})
