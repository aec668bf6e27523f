/**
 * `npm run bench`: the cost of the tunnel, as ratios within one run.
 *
 * Every way is measured in every round, so that noise affects all of them; a figure is the median of the rounds.
 *
 * `--quick` takes short measurements, one round and no peers; `--only <regex>` measures some figures; `--relay portable|kernel|auto`
 * chooses the tunnel's relay. A complete run writes results.json, chart.svg and the tables of README.md and docs/performance.md.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import * as Chart from "./Chart.js"
import * as Figures from "./Figures.js"
import * as Fresh from "./Fresh.js"
import type { Outcome } from "./load.js"
import * as Peers from "./Peers.js"
import * as Program from "./Program.js"
import * as Results from "./Results.js"
import * as Stage from "./Stage.js"
import * as Trials from "./Trials.js"
import * as Ways from "./Ways.js"

const { values: options } = parseArgs({
  options: { quick: { type: "boolean" }, only: { type: "string" }, relay: { type: "string" } }
})
if (options.relay !== undefined) process.env["NP_RELAY"] = options.relay
const quick = options.quick === true
const only = new RegExp(options.only ?? "", "i")
const rounds = quick ? 1 : 5
/** Peers are for comparison only, so fewer rounds are enough. */
const peerRounds = 3
const millis = quick ? 150 : 250
const warming = 4000

setTimeout(() => {
  console.error("bench: stopped after five minutes")
  process.exit(1)
}, 300_000).unref()

const target = Number(await Program.line(Stage.start("target", [])))
const visitors = Stage.makeVisitors()
const others = Stage.makeVisitors()
const serve = async (way: Promise<Ways.Way>) => Ways.served(await way, visitors)

const trials = Trials.make({ millis, visitors, others }).filter((trial) =>
  trial.figures.some(({ name }) => only.test(name))
)
const isNeeded = (...kinds: ReadonlyArray<Trials.Trial["ways"]>) => trials.some(({ ways }) => kinds.includes(ways))
const peers = quick ? [] : isNeeded("peers") ? await Peers.start(target, visitors) : []
const plain = isNeeded("plain", "peers")
  ? [Ways.direct(target), await serve(Ways.pipes(target)), await serve(Ways.tunnel(target))]
  : []
const secured = isNeeded("secured")
  ? [await serve(Ways.pipes(target, { secured: true })), await serve(Ways.tunnel(target, { secured: true }))]
  : []
const ways = { plain, peers: [...plain, ...peers], secured }

// Warm-up: V8 needs thousands of visitors to compile the code that serves one.
for (const { port } of quick ? [] : [...ways.peers, ...secured]) {
  await visitors.run({ what: "source", port, streams: 8, millis })
  await visitors.run({ what: "visitors", port, concurrency: 32, millis: warming })
}

const relay = process.env["NP_RELAY"] ?? "auto"
const columns = ["direct", "pipes", "tunnel", ...peers.map(({ name }) => name)]
console.log(
  `\n${Os.cpus().length} cores, Node ${process.version}, relay ${relay}; median of ${rounds}, ${millis} ms each\n`
)
console.log(Figures.head(columns))

const figures: Array<Results.Figure> = []
let failures = 0
const add = (measured: Results.Figure) => {
  if (!only.test(measured.name)) return
  const values = Object.entries(measured.values).filter(([, value]) => Number.isFinite(value))
  const figure = { ...measured, values: Object.fromEntries(values) }
  figures.push(figure)
  console.log(Figures.line(figure, columns))
}

for (const trial of trials) {
  const outcomes = new Map<string, Array<Outcome>>(ways[trial.ways].map(({ name }) => [name, []]))
  for (let round = 0; round < Math.min(rounds, trial.rounds ?? rounds); round++) {
    for (const way of ways[trial.ways]) {
      if (round >= peerRounds && peers.includes(way)) continue
      const outcome = await trial.turn(way)
      outcomes.get(way.name)?.push(outcome)
      if (way.name === "tunnel") failures += outcome["failed"] ?? 0
      if ((outcome["failed"] ?? 0) > 0) console.log(`${way.name}: ${outcome["failed"]} failed`)
    }
  }
  for (const { of, ...figure } of trial.figures) {
    add({ ...figure, values: Object.fromEntries(Array.from(outcomes, ([name, all]) => [name, of(all)])) })
  }
}
for (const way of [...plain, ...peers, ...secured]) Ways.stop(way)

// A hop needs two descriptors per visitor, one more while the visitor starts, and those of the pool.
const wanted = quick ? 500 : 8000
const limit = Math.min(wanted, Math.floor((Program.descriptorLimit() - 2000) / 3))
const { failed, idle, ...fresh } = await Fresh.measure({
  target,
  visitors,
  rounds: quick ? 1 : 3,
  millis: quick ? 500 : 3000,
  idle: limit,
  only
})
for (const figure of fresh.figures) add(figure)
failures += failed
if (limit < wanted) console.log(`a process may open ${Program.descriptorLimit()} files: at most ${limit} idle visitors`)
if (idle > 0) console.log(`idle visitors: ${idle}${idle < limit ? `, more did not connect in time` : ""}`)

console.log(`\nvisitors of the tunnel that were not served: ${failures}\n\nreached / goal`)
for (const line of Results.goals({ figures, failures })) console.log(line)

if (!quick && options.only === undefined) {
  const results = {
    cores: Os.cpus().length,
    node: process.version,
    relay,
    rounds,
    turn: millis,
    idle,
    figures,
    failures
  }
  Fs.writeFileSync(Results.file, `${JSON.stringify(results, null, 2)}\n`)
  Fs.writeFileSync(Chart.file, Chart.make(results))
  for (const [page, path] of [
    ["README", "../README.md"] as const,
    ["performance", "../docs/performance.md"] as const
  ]) {
    const file = Path.join(import.meta.dirname, path)
    Fs.writeFileSync(file, Figures.intoPage(Fs.readFileSync(file, "utf8"), results, page))
  }
}
process.exit(failures === 0 ? 0 : 1)
