/**
 * `npm run bench`: what the tunnel costs, as ratios within one run.
 *
 * Direct loopback, two plain Node pipes and the tunnel take turns, each with its hops, load and target in processes of
 * their own. `--quick` for shorter turns.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { createInterface } from "node:readline"
import { promisify } from "node:util"
import { freePort } from "../test/command/freePort.js"

const quick = process.argv.includes("--quick")
const turn = quick ? 150 : 800
const rounds = quick ? 1 : 3
const here = import.meta.dirname
const root = Path.join(here, "..")
const run = promisify(execFile)

const started: Array<ChildProcess> = []
const stop = () => {
  for (const child of started) child.kill("SIGKILL")
}
process.on("exit", stop)
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130))

/** Starts a program and waits for a line of it. */
const start = async (
  args: ReadonlyArray<string>,
  pattern: RegExp
): Promise<{ readonly line: string; readonly pid: number }> => {
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
  started.push(child)
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`${args.join(" ")} ended with ${code}`)))
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        if (pattern.test(line)) resolve({ line, pid: child.pid ?? 0 })
      })
    }
  })
}

const script = (name: string, ...args: ReadonlyArray<string | number>) => [
  "--import",
  "tsx",
  Path.join(here, name),
  ...args.map(String)
]
const portOf = async (name: string, ...args: ReadonlyArray<string | number>) =>
  Number((await start(script(name, ...args), /^\d+$/)).line)

const drive = async (what: string, port: number, first: number, second: number): Promise<Record<string, number>> => {
  const { stdout } = await run(process.execPath, script("load.ts", what, port, first, second))
  return JSON.parse(stdout) as Record<string, number>
}

const target = await portOf("load.ts", "target")
const pipes = await portOf("pipe.ts", await portOf("pipe.ts", target))

const [tunnelPort, visitorsPort] = [await freePort(), await freePort()]
const [tlsTunnelPort, tlsVisitorsPort] = [await freePort(), await freePort()]
const begun = performance.now()
const server = await start(
  ["bin/nodepass.js", `server://bench@127.0.0.1:${tunnelPort}/127.0.0.1:${visitorsPort}?mode=1&slot=0`],
  /waiting for a client/
)
const listening = performance.now() - begun
const client = await start(
  ["bin/nodepass.js", `client://bench@127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2&slot=0`],
  / connected /
)
const tunnel = visitorsPort
await drive("burst", tunnel, 0, 1)
const firstVisitor = performance.now() - begun

const status = (pid: number, field: string) =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(Fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN)
const idle = (pid: number) =>
  process.platform === "linux"
    ? { rssMiB: status(pid, "VmRSS") / 1024, descriptors: Fs.readdirSync(`/proc/${pid}/fd`).length }
    : { rssMiB: Number.NaN, descriptors: Number.NaN }
await new Promise((resolve) => setTimeout(resolve, 1000))
const cost = { server: idle(server.pid), client: idle(client.pid) }

await start(
  ["bin/nodepass.js", `server://bench@127.0.0.1:${tlsTunnelPort}/127.0.0.1:${tlsVisitorsPort}?mode=1&slot=0&tls=1`],
  /waiting for a client/
)
await start(
  ["bin/nodepass.js", `client://bench@127.0.0.1:${tlsTunnelPort}/127.0.0.1:${target}?mode=2&slot=0&tls=1`],
  / connected /
)

const plain = { direct: target, pipes, tunnel }
const secured = { ...plain, tunnel: tlsVisitorsPort }
type Way = keyof typeof plain

const median = (values: ReadonlyArray<number>) =>
  values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN

interface Figure {
  readonly name: string
  readonly unit: string
  readonly values: Record<Way, number>
}
const figures: Array<Figure> = []
let failures = 0

/** Each way takes its turn in each round, so that a noisy minute is everybody's. */
const measure = async (
  name: string,
  unit: string,
  field: string,
  what: string,
  first: number,
  { second = turn, ways = plain }: { readonly second?: number; readonly ways?: typeof plain } = {}
) => {
  const all: Record<Way, Array<number>> = { direct: [], pipes: [], tunnel: [] }
  for (let round = 0; round < rounds; round++) {
    for (const way of Object.keys(ways) as ReadonlyArray<Way>) {
      const result = await drive(what, ways[way], first, second)
      all[way].push(result[field] ?? Number.NaN)
      if (way === "tunnel") failures += result["failed"] ?? 0
    }
  }
  const values = { direct: median(all.direct), pipes: median(all.pipes), tunnel: median(all.tunnel) }
  figures.push({ name, unit, values })
  const cells = Object.values(values).map((value) => value.toFixed(value < 100 ? 1 : 0).padStart(10))
  const ratio = (values.tunnel / values.pipes).toFixed(2).padStart(12)
  console.log(`${name.padEnd(44)}${unit.padEnd(11)}${cells.join("")}${ratio}`)
}

console.log(`${Os.cpus().length} cores, Node ${process.version}, loopback; median of ${rounds}, turns of ${turn} ms\n`)
console.log(
  `${"".padEnd(55)}${["direct", "2 pipes", "tunnel", "tunnel/pipes"].map((head, at) => head.padStart(at === 3 ? 13 : 10)).join("")}`
)
await measure("throughput, 1 stream to the target", "MiB/s", "rate", "sink", 1)
await measure("throughput, 1 stream to the visitor", "MiB/s", "rate", "source", 1)
await measure("throughput, 8 streams to the target", "MiB/s", "rate", "sink", 8)
await measure("throughput, 8 streams to the visitor", "MiB/s", "rate", "source", 8)
await measure("new visitors, one at a time", "visits/s", "rate", "visitors", 1)
await measure("new visitors, 32 at a time", "visits/s", "rate", "visitors", 32)
await measure("64-byte round trip, p50", "µs", "p50", "latency", 0)
await measure("64-byte round trip, p99", "µs", "p99", "latency", 0)
await measure("500 visitors at once, to the last", "ms", "millis", "burst", 0, { second: 500 })
await measure("tls=1: throughput, 1 stream to the visitor", "MiB/s", "rate", "source", 1, { ways: secured })
await measure("tls=1: new visitors, one at a time", "visits/s", "rate", "visitors", 1, { ways: secured })
await measure("UDP: 1200-byte datagrams echoed", "1/s", "rate", "datagrams", 1200)

console.log(`\nvisitors of the tunnel who were not served: ${failures}`)
console.log(
  `start to listening ${listening.toFixed(0)} ms, to the first visitor served (both sides started) ${firstVisitor.toFixed(0)} ms`
)
for (const [side, { descriptors, rssMiB }] of Object.entries(cost)) {
  console.log(`idle with the default pool, ${side}: ${rssMiB.toFixed(0)} MiB, ${descriptors} descriptors`)
}
for (const peer of ["nodepass", "frps", "rathole", "chisel", "bore", "haproxy"]) {
  const found = spawnSync("sh", ["-c", `command -v ${peer}`]).status === 0
  console.log(`${peer}: ${found ? "found, and not measured yet" : "skipped, not on PATH"}`)
}
if (!quick) {
  const results = {
    cores: Os.cpus().length,
    node: process.version,
    rounds,
    turn,
    figures,
    failures,
    listening,
    firstVisitor,
    cost
  }
  Fs.writeFileSync(Path.join(here, "results.json"), `${JSON.stringify(results, null, 2)}\n`)
}
process.exit(failures === 0 ? 0 : 1)
