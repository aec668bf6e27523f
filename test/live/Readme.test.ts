import { assert, describe, it } from "vitest"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { promisify } from "node:util"
import * as Chart from "../../bench/Chart.js"
import * as Figures from "../../bench/Figures.js"
import * as Results from "../../bench/Results.js"
import * as Parameter from "../../src/url/Parameter.js"
import { isLong, runs } from "../Runs.js"
import { bundle } from "./command/Bundle.js"
import { freePort } from "./command/freePort.js"
import * as Here from "./command/Here.js"
import { apiKeyOf, makeWorld, pause } from "./command/Nodepass.js"

const root = Path.join(import.meta.dirname, "../..")
const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")
const run = promisify(execFile)

/** The fenced blocks by their `run=` name. */
const snippets = new Map(
  Array.from(readme.matchAll(/```(\w+) run=(\w+)\n([\s\S]*?)```/g), ([, , name = "", text = ""]) => [name, text])
)
const snippet = (name: string) => snippets.get(name) ?? assert.fail(`README.md has no snippet ${name}`)
const commandsOf = (name: string) =>
  snippet(name)
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))

const listen = (server: Net.Server, port = 0) =>
  new Promise<number>((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, "127.0.0.1", () => {
      const address = server.address()
      resolve(typeof address === "object" && address !== null ? address.port : 0)
    })
  })

/** Visits until one is answered, because the commands take a moment to connect. */
const visit = (port: number): Promise<string> =>
  new Promise((resolve) => {
    const again = () => void pause().then(() => resolve(visit(port)))
    const socket = Net.connect({ port, host: "127.0.0.1" })
    let text = ""
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
    socket.on("error", again).on("end", () => (text === "" ? again() : resolve(text)))
  })

/** The words of a command of the shell. */
const wordsOf = async (command: string) => {
  const { stdout } = await run("sh", ["-c", `printf '%s\\0' ${command}`])
  return stdout.split("\0").slice(0, -1)
}

/**
 * Starts the commands with free ports, visits port 8080 of the README, and stops them. Those that only start `nodepass`
 * run here unless `by` is the shell.
 */
const serves = async ([name, by]: readonly [name: string, by: "shell" | "here"]) => {
  const world = makeWorld()
  // It reads, so that it sees the end of a connection.
  const target = Net.createServer((socket) =>
    socket
      .on("error", () => {})
      .resume()
      .end("hello from the target")
  )
  const ports = new Map([["3000", await listen(target)]])
  const started: Array<ChildProcess> = []
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-readme-"))
  const keyFile = Path.join(folder, "key")
  try {
    Fs.writeFileSync(keyFile, "q3f7n5x2k6w4m2z7t5r3b6h4cd\n", { mode: 0o600 })
    for (const command of commandsOf(name)) {
      for (const [, port = ""] of command.matchAll(/:(\d+)/g)) if (!ports.has(port)) ports.set(port, await freePort())
      const own = command
        .replaceAll("/etc/nodepass/key", keyFile)
        .replaceAll(/\w+\.example/g, "127.0.0.1")
        .replaceAll(/:(\d+)/g, (_, port: string) => `:${ports.get(port)}`)
      if (command.includes("> /etc")) await run("sh", ["-c", own], { cwd: root })
      else if (by === "here") {
        const [node, program, ...args] = await wordsOf(own)
        assert.deepStrictEqual([node, program], ["node", "bin/nodepass.js"])
        Here.starter(world)(args)
      }
      // A group of its own: the shell may not be replaced by the command.
      else started.push(spawn("sh", ["-c", own], { cwd: root, stdio: "ignore", detached: true }))
    }
    for (const port of ["8080", "8081"].filter((port) => ports.has(port))) {
      assert.strictEqual(await visit(ports.get(port) ?? 0), "hello from the target")
    }
  } finally {
    for (const { pid } of started) if (pid !== undefined) process.kill(-pid, "SIGKILL")
    target.close()
    await world.close()
    Fs.rmSync(folder, { recursive: true })
  }
}

describe("README", () => {
  it("starts with the two commands, and both exist", () => {
    const scripts: unknown = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8")).scripts
    assert.match(readme, /^# nodepass-effect\n\n```sh\nnpm start .*\nnpm test .*\n```/)
    assert.containsAllKeys(scripts, ["start", "test", "simulate", "bench"])
  })

  it("runs every snippet in a test", () => {
    const fences = Array.from(readme.matchAll(/^```(\w+.*)$/gm), ([, info = ""]) => info)
    const ran = [
      "sh",
      ...[
        "reverse",
        "send",
        "forward",
        "tls",
        "targets",
        "servers",
        "key",
        "master",
        "api",
        "check",
        "simulate",
        "bench"
      ].map((name) => `sh run=${name}`)
    ]
    assert.deepStrictEqual(
      fences.filter((info) => !ran.includes(info)),
      ["ts run=embed"]
    )
    assert.strictEqual(fences.filter((info) => info === "sh").length, 1)
  })

  it.each([
    ["reverse", "shell"],
    ["send", "here"],
    ["forward", "here"],
    ["tls", "here"],
    ["targets", "here"],
    ["servers", "here"],
    ["key", "shell"]
  ] as const)("the commands of %s serve a visitor, run by %s", (...snippet) => serves(snippet))

  it("the master's commands start a master and create a tunnel that serves", async () => {
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-readme-"))
    try {
      const target = await world.listen((socket) => socket.end("hello from the target"))
      const ports = new Map([[3000, target.port]])
      for (const port of [8080, 9090]) ports.set(port, await freePort())
      const own = (text: string) =>
        text
          .replaceAll(/(127\.0\.0\.1):(\d+)/g, (_, host: string, port: string) => `${host}:${ports.get(Number(port))}`)
          .replace("/var/lib/nodepass", folder)
      const [command = ""] = commandsOf("master")
      const [, url = ""] = /^node bin\/nodepass\.js "(.*)"$/.exec(command) ?? assert.fail(command)
      const master = world.start([own(url)])
      const key = await apiKeyOf(master, ports.get(9090) ?? 0)
      const answers: Array<string> = []
      for (const call of commandsOf("api")) {
        const { stdout } = await run("bash", ["-c", own(call)], { env: { ...process.env, KEY: key } })
        answers.push(stdout)
      }
      const [made = "", list = ""] = answers
      assert.deepInclude(JSON.parse(made), { status: "running", type: "client" })
      assert.strictEqual(JSON.parse(list).length, 2)
      assert.strictEqual(await visit(ports.get(8080) ?? 0), "hello from the target")
      assert.strictEqual(await master.stop(), 0)
    } finally {
      await world.close()
      Fs.rmSync(folder, { recursive: true })
    }
  })

  it("npm start opens a tunnel, prints its address, and exits with 0", async () => {
    const world = makeWorld()
    try {
      const { line, stop } = world.start([], {}, "scripts/start.js")
      const [, url = ""] = /(http:\S+)/.exec(await line(/Open it:/)) ?? []
      const page = await (await fetch(url, { headers: { connection: "close" } })).text()
      assert.match(page, /You reached the demo target through the tunnel/)
      await line(/visitors \d+ \(\d+ tcp, \d+ udp now\) .* pool \d+ ready/)
      assert.strictEqual(await stop("SIGINT"), 0)
    } finally {
      await world.close()
    }
  })

  it("npm run bench measures and serves every visitor", async () => {
    const some = ["--only", "^throughput, 8 streams to the visitor|^new visitors, 32 at"]
    const { stdout } = await run(process.execPath, ["scripts/bench.js", "--quick", ...(isLong ? [] : some)], {
      cwd: root,
      // A visitor may take long on a busy machine.
      env: { ...process.env, NP_POOL_GET_TIMEOUT: "1m", NP_HANDSHAKE_TIMEOUT: "1m" }
    })
    assert.match(stdout, /throughput, 8 streams to the visitor +MiB\/s( +[\d.]+){4}/)
    assert.match(stdout, /not served: 0/)
  })

  it("check explains the URL", async () => {
    const [command = ""] = commandsOf("check")
    const url = /"(.*)"$/.exec(command)?.[1] ?? ""
    const { stdout } = await run(process.execPath, ["bin/nodepass.js", "check", url], { cwd: root })
    assert.match(stdout, /slot=100/)
    assert.notMatch(stdout, /my-key/)
  })

  it("the worlds of the simulate command keep every law", async () => {
    const [command = ""] = commandsOf("simulate")
    const args = command.replace("npm run simulate -- ", "").replace("--seeds 20", `--seeds ${runs(1, 20)}`)
    const { stdout } = await run(process.execPath, ["scripts/simulate.js", ...args.split(" ")], { cwd: root })
    assert.match(stdout, /\b(1|20) worlds, 0 violations/)
  })

  it("the program of the embedding snippet runs", async () => {
    const folder = Fs.mkdtempSync(Path.join(root, ".dist-readme-"))
    try {
      const ports = [await freePort(), await freePort()]
      const text = snippet("embed").replaceAll(/127\.0\.0\.1:\d+/g, () => `127.0.0.1:${ports.pop()}`)
      const file = Path.join(folder, "embed.mts")
      Fs.writeFileSync(file, text)
      const program = Path.join(folder, "embed.mjs")
      await bundle(file, program)
      const { stdout } = await run(process.execPath, [program], { cwd: root })
      assert.match(stdout, /serving CHECK_POINT\|MODE=1\|/)
    } finally {
      Fs.rmSync(folder, { recursive: true })
    }
  })

  it("its table of parameters is made from their descriptions", () => {
    const mark = (roles: ReadonlyArray<Parameter.Role>, role: Parameter.Role) => (roles.includes(role) ? "x" : "")
    const rows = Parameter.all.map((parameter) =>
      [
        `\`${parameter.name}\``,
        mark(parameter.roles, "server"),
        mark(parameter.roles, "client"),
        mark(parameter.roles, "master"),
        parameter.default === undefined ? "" : `\`${parameter.default}\``,
        parameter.accepts,
        parameter.meaning
      ].join(" | ")
    )
    const table = rows.map((row) => `| ${row} |\n`).join("")
    const written = /(?<=<!-- parameters -->\n(?:.*\n){2})[\s\S]*?(?=<!-- \/parameters -->)/
    if (process.env["NODEPASS_WRITE"] !== undefined) {
      Fs.writeFileSync(
        Path.join(root, "README.md"),
        readme.replace(written, () => table)
      )
    }
    assert.strictEqual(written.exec(Fs.readFileSync(Path.join(root, "README.md"), "utf8"))?.[0], table)
  })

  it("its figures and chart are those of the last benchmark run", () => {
    const results = Results.load()
    const performance = Fs.readFileSync(Path.join(root, "docs/performance.md"), "utf8")
    assert.strictEqual(Figures.fromPage(readme), Figures.markdown(results, "README"))
    assert.strictEqual(Figures.fromPage(performance), Figures.markdown(results, "performance"))
    assert.strictEqual(Fs.readFileSync(Chart.file, "utf8"), Chart.make(results))
  })

  it("every document it links to exists", () => {
    for (const [, link = ""] of readme.matchAll(/\]\(([^)#]+)[^)]*\)/g)) {
      if (!link.startsWith("https:")) assert.isTrue(Fs.existsSync(Path.join(root, link)), link)
    }
  })
})
