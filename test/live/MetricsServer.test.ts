import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import { echoing, makeWorld, pause, type Run, type Start, type World, tunnelKey } from "./command/Nodepass.js"

const { version } = JSON.parse(Fs.readFileSync(Path.join(import.meta.dirname, "../../package.json"), "utf8")) as {
  readonly version: string
}

let world: World
let start: Start<Here.HereRun>
beforeEach(() => {
  world = makeWorld()
  start = Here.starter(world)
})
afterEach(() => world.close())

/** Where a process serves its metrics, as its log has it. */
const metricsOf = async (process: Run) => {
  const [, address = ""] = / address=(\S+)/.exec(await process.line(/serving \/metrics and \/health/)) ?? []
  return `http://${address}`
}

const health = async (base: string) => {
  const response = await fetch(`${base}/health`)
  return { code: response.status, ...((await response.json()) as { readonly status: string; readonly reason: string }) }
}

/** Waits until the health has this status. */
const healthUntil = async (base: string, status: string) => {
  for (;;) {
    const answer = await health(base)
    if (answer.status === status) return answer
    await pause()
  }
}

/** Waits until the metrics have this line: relay threads report bytes a moment after they have moved them. */
const metricUntil = async (base: string, line: string) => {
  while (!(await (await fetch(`${base}/metrics`)).text()).split("\n").includes(line)) await pause()
}

const sides = async () => {
  const { port: target } = await world.listen(echoing)
  const [tunnelPort, port] = [await world.freePort(), await world.freePort()]
  return {
    port,
    tunnelPort,
    serverUrl: `server://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1`,
    clientUrl: `client://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2`
  }
}

describe("--metrics", () => {
  it("serves the metrics of a tunnel by itself, and its health: waiting, serving, stopping", async () => {
    const { clientUrl, port, serverUrl, tunnelPort } = await sides()
    const server = start(["--metrics=0", serverUrl])
    const base = await metricsOf(server)
    assert.match(base, /^http:\/\/127\.0\.0\.1:[1-9]\d*$/)
    assert.deepStrictEqual(await healthUntil(base, "waiting"), {
      code: 503,
      status: "waiting",
      reason: "no client has connected yet"
    })
    const client = start([clientUrl])
    assert.deepStrictEqual(await healthUntil(base, "serving"), {
      code: 200,
      status: "serving",
      reason: "visitors are served"
    })

    const visitor = world.connect(port)
    visitor.write("hello")
    await once(visitor, "data")
    const metrics = await fetch(`${base}/metrics`)
    assert.deepStrictEqual(
      [metrics.status, metrics.headers.get("content-type")],
      [200, "text/plain; version=0.0.4; charset=utf-8"]
    )
    const labels = `type="server",tunnel="127.0.0.1:${tunnelPort}/127.0.0.1:${port}"`
    await metricUntil(base, `nodepass_instance_bytes_total{${labels},protocol="tcp",direction="rx"} 5`)
    assert.includeMembers((await metrics.text()).split("\n"), [
      "# TYPE nodepass_instance_bytes_total counter",
      `nodepass_instance_up{${labels}} 1`,
      `nodepass_instance_visitors{${labels},protocol="tcp"} 1`,
      `nodepass_instance_visitors_total{${labels},protocol="tcp"} 1`,
      `nodepass_instance_sessions{${labels}} 1`,
      `nodepass_instance_sessions_total{${labels},kind="new"} 1`,
      `nodepass_info{version="${version}"} 1`
    ])

    const stopped = server.stop()
    assert.deepStrictEqual(await healthUntil(base, "stopping"), {
      code: 503,
      status: "stopping",
      reason: "visitors who are being served may finish"
    })
    visitor.end()
    assert.strictEqual(await stopped, 0)
    assert.strictEqual(await client.stop(), 0)
  })

  it("answers other paths with 404, and NP_METRICS does the same", async () => {
    const { clientUrl } = await sides()
    const client = world.start([clientUrl], { NP_METRICS: "localhost:0" })
    const base = await metricsOf(client)
    const waiting = await healthUntil(base, "waiting")
    assert.strictEqual(waiting.code, 503)
    assert.match(waiting.reason, /^127\.0\.0\.1:\d+: connecting$|^connect 127\.0\.0\.1:\d+: connection refused$/)
    assert.strictEqual((await fetch(`${base}/`)).status, 404)
    assert.strictEqual(await client.stop(), 0)
  })

  it("is the demo's as well", async () => {
    const demo = start(["demo", "--metrics=0"])
    const [, base = ""] = /(http:\S+)\/metrics/.exec(await demo.line(/Metrics:/)) ?? []
    assert.strictEqual((await health(base)).code, 200)
    const text = await (await fetch(`${base}/metrics`)).text()
    assert.match(text, /^nodepass_instance_up\{type="client",.*\} 1$/m)
    assert.match(text, /^nodepass_instance_up\{type="server",.*\} 1$/m)
    assert.strictEqual(await demo.stop(), 0)
  })

  it("at a port in use is one line and exit code 1, before the tunnel opens", async () => {
    const { serverUrl } = await sides()
    const { port } = await world.listen(() => {})
    const server = start([`--metrics=${port}`, serverUrl])
    assert.strictEqual(await server.ended, 1)
    assert.strictEqual(server.log(), `nodepass: listen 127.0.0.1:${port}: address already in use\n`)
  })

  it.each([
    [
      ["--metrics=http", "client://k@h:1/h:2"],
      {},
      /--metrics=http: expected a port or host:port, in --metrics or NP_METRICS;/
    ],
    [
      ["--metrics=70000", "client://k@h:1/h:2"],
      {},
      /--metrics=70000: expected a port or host:port, in --metrics or NP_METRICS;/
    ],
    [
      ["client://k@h:1/h:2"],
      { NP_METRICS: "h:" },
      /--metrics=h:: expected a port or host:port, in --metrics or NP_METRICS;/
    ],
    [["demo", "--metrics=x"], {}, /--metrics=x: expected a port or host:port, in --metrics or NP_METRICS;/],
    [["--metrics=0", "master://:1"], {}, /--metrics: expected server:\/\/ or client:\/\/, not master:/]
  ] as ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, RegExp]>)(
    "refuses %j %j in one line",
    async (args, env, line) => {
      const { ended, log, out } = start(args, env)
      assert.deepStrictEqual([await ended, out()], [2, ""])
      assert.match(log(), line)
      assert.lengthOf(log().trimEnd().split("\n"), 1)
    }
  )
})
