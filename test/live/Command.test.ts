import { afterEach, assert, beforeEach, describe, it } from "vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import {
  answering,
  ask,
  fate,
  makeWorld,
  pause,
  type Run,
  type Start,
  tunnel,
  tunnelKey,
  type World
} from "./command/Nodepass.js"

let world: World
let here: Start<Here.HereRun>
beforeEach(() => {
  world = makeWorld()
  here = Here.starter(world)
})
afterEach(() => world.close())

const { version } = JSON.parse(Fs.readFileSync(Path.join(import.meta.dirname, "../../package.json"), "utf8")) as {
  readonly version: string
}

/** Waits for the end of the command. */
const outcome = async ({ ended, log, out }: Run) => {
  const code = await ended
  return { code, out: out(), log: log() }
}

/** Runs a process until it exits. */
const run = (args: ReadonlyArray<string>) => outcome(world.start(args))

/** Asserts exit code 2 and one line on standard error. */
const refuses = async (command: Run, line: RegExp) => {
  const { code, log, out } = await outcome(command)
  assert.match(log, line)
  assert.strictEqual(log.trimEnd().split("\n").length, 1, log)
  assert.deepStrictEqual([code, out], [2, ""])
}

describe("the command", () => {
  it("prints its version", async () => {
    assert.deepStrictEqual(await run(["--version"]), { code: 0, out: `${version}\n`, log: "" })
  })

  it("prints its help, without colours when standard output is not a terminal", async () => {
    const { code, out } = await run(["--help"])
    assert.strictEqual(code, 0)
    assert.match(out, /nodepass \[--watch\] \[--key-file file\] \[--metrics address\] \[<url>\]/)
    assert.notInclude(out, "\u001b[")
  })

  it("prints a completion script", async () => {
    assert.match((await outcome(here(["--completions", "bash"]))).out, /complete .*nodepass/)
  })

  it("check prints the URL with every default, and opens nothing", async () => {
    const { code, out } = await run(["check", `server://${tunnelKey}@:10101/:8080`])
    assert.strictEqual(code, 0)
    assert.include(out, "server://***@:10101/:8080?log=info&tls=0&max=1024&mode=0&rate=0&slot=65536&proxy=0")
    assert.notInclude(out, tunnelKey)
  })

  it("key prints a fresh key, and nothing else", async () => {
    const { code, log, out } = await outcome(here(["key"]))
    assert.match(out, /^[a-z2-7]{26}\n$/)
    assert.deepStrictEqual([code, log], [0, ""])
  })

  it.each([
    [[], /<url>: expected a URL/],
    [["run"], /Missing argument <url>/],
    [["ftp://h:1/h:2"], /scheme=ftp: expected server or client/],
    [["server"], /url=server: expected/],
    [["server://k@h:0/h:1"], /tunnel port=0: expected a whole number from 1 to 65535/],
    [["server://k@h:1/h:2?maks=3"], /maks is not a parameter \(did you mean max\?\); server:\/\/ accepts/],
    [["server://s3%zz@h:1/h:2"], /key=\*\*\*: expected/],
    [["--log-level", "loud", "server://k@h:1/h:2"], /--log-level=loud: expected one of/]
  ] as ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]>)("refuses %j", (args, line) => refuses(here(args), line))

  it("check refuses what run refuses", () =>
    refuses(world.start(["check", "client://k@h:1/h:2?min=0"]), /^nodepass: min=0: expected/))

  it("refuses an invalid environment variable", () =>
    refuses(
      world.start(["client://k@h:1/h:2"], { NP_POOL_GET_TIMEOUT: "soon" }),
      /NP_POOL_GET_TIMEOUT=soon: expected a duration/
    ))

  it("an address in use is one line and exit code 1", async () => {
    const { port } = await world.listen(() => {})
    const { code, log } = await run([`server://k@127.0.0.1:${port}/127.0.0.1:${await world.freePort()}`])
    assert.strictEqual(log, `nodepass: listen 127.0.0.1:${port}: address already in use\n`)
    assert.strictEqual(code, 1)
  })

  it("forwards without a server with mode=1", async () => {
    const { port: target } = await world.listen(answering)
    const port = await world.freePort()
    const forward = here([`client://127.0.0.1:${port}/127.0.0.1:${target}?mode=1`])
    await forward.line(/forwarding/)
    assert.strictEqual(String(await ask(world, port, "hello")), "re:hello")
    assert.strictEqual(await forward.stop(), 0)
  })

  it.skipIf(!Fs.existsSync("/proc/self/cmdline"))(
    "shows no key, neither in its log nor in its process title",
    async () => {
      const { port: target } = await world.listen(answering)
      const { client, port, server } = await tunnel(world, { target, receiver: "server", query: "&log=debug" })
      await ask(world, port, "hello")
      for (const { log, pid } of [server, client]) {
        assert.notInclude(log(), tunnelKey)
        assert.notInclude(Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8"), tunnelKey)
      }
    }
  )
})

describe("the log", () => {
  const url = async (query: string) =>
    `server://${tunnelKey}@127.0.0.1:${await world.freePort()}/127.0.0.1:${await world.freePort()}?mode=1${query}`

  it("has one line per record: time, level, message, key=value", async () => {
    const server = world.start([await url("")])
    assert.match(
      await server.line(/waiting/),
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z {2}INFO {2}waiting for a client mode=1 tunnel=\S+ visitors=\S+$/
    )
  })

  it("log=event adds checkpoints in the format that dashboards parse", async () => {
    const server = here([await url("&log=event")], { NP_REPORT_INTERVAL: "50ms" })
    assert.match(
      await server.line(/CHECK_POINT/),
      /CHECK_POINT\|MODE=1\|PING=0ms\|POOL=0\|TCPS=0\|UDPS=0\|TCPRX=0\|TCPTX=0\|UDPRX=0\|UDPTX=0$/
    )
  })

  it("NP_LOG_FORMAT=json makes each line a JSON object", async () => {
    const server = world.start([await url("")], { NP_LOG_FORMAT: "json" })
    const record = JSON.parse(await server.line(/waiting/)) as Record<string, unknown>
    assert.deepInclude(record, { level: "info", message: "waiting for a client", mode: 1 })
  })

  it("log=none logs nothing", async () => {
    const [tunnelPort, port] = [await world.freePort(), await world.freePort()]
    const server = world.start([`server://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1&log=none`])
    while ((await fate(world.connect(tunnelPort).end("not a handshake\n"))) === "ECONNREFUSED") await pause()
    assert.strictEqual(await server.stop(), 0)
    assert.strictEqual(server.log(), "")
  })

  it("--log-level takes precedence over the URL's log", async () => {
    const server = world.start(["--log-level", "info", await url("&log=none")])
    await server.line(/waiting for a client/)
  })
})
