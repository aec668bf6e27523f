/**
 * Measurements on fresh processes: time until they serve, pauses of the garbage collector, and memory and descriptors of idle
 * visitors.
 */
import * as Program from "./Program.js"
import type { Figure } from "./Results.js"
import type { Visitors } from "./Stage.js"
import * as Ways from "./Ways.js"

export interface Options {
  readonly target: number
  readonly visitors: Visitors
  readonly rounds: number
  /** Time for visitors while pauses are measured. */
  readonly millis: number
  /** Idle visitors to open; fewer if they do not connect within 15 s. */
  readonly idle: number
  /** Measures only figures whose name matches. */
  readonly only: RegExp
}

export interface Outcome {
  readonly figures: ReadonlyArray<Figure>
  /** Idle visitors that were open, of the way with the fewest. */
  readonly idle: number
  /** Visitors of the tunnel who were not served. */
  readonly failed: number
}

const kinds = [Ways.pipes, Ways.tunnel]
const wait = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

/** Both sides start at the same moment; visits are repeated until one is served. */
const startToFirst = async ({ rounds, target, visitors }: Options): Promise<Outcome> => {
  const times = new Map<string, Array<number>>()
  for (let round = 0; round < rounds; round++) {
    for (const kind of kinds) {
      const begun = performance.now()
      const way = await Ways.served(await kind(target), visitors)
      times.set(way.name, [...(times.get(way.name) ?? []), performance.now() - begun])
      Ways.stop(way)
    }
  }
  const values = Object.fromEntries(
    Array.from(times, ([name, all]) => [name, all.toSorted((left, right) => left - right)[Math.floor(rounds / 2)] ?? 0])
  )
  return { figures: [{ name: startName, unit: "ms", better: "less", values }], idle: 0, failed: 0 }
}
const startName = "start to the first visitor served"

/** Pauses of both hops together, while visitors come. */
const pauses = async ({ millis, target, visitors }: Options): Promise<Outcome> => {
  const probe = `--import=${new URL("pauses.js", import.meta.url).href}`
  const values = { longest: new Map<string, number>(), p99: new Map<string, number>() }
  for (const kind of kinds) {
    const way = await Ways.served(await kind(target, { env: { ...process.env, NODE_OPTIONS: probe } }), visitors)
    await visitors.run({ what: "visitors", port: way.port, concurrency: 32, millis })
    for (const { child } of way.hops) child.kill("SIGUSR2")
    await wait(300)
    await visitors.run({ what: "visitors", port: way.port, concurrency: 32, millis })
    for (const { child } of way.hops) child.kill("SIGUSR2")
    await wait(300)
    const found = way.hops.flatMap(({ lastLine }) => {
      const [, list = "[]"] = /^pauses: (\[.*\])$/.exec(lastLine()) ?? []
      return JSON.parse(list) as ReadonlyArray<number>
    })
    const sorted = found.toSorted((left, right) => left - right)
    values.longest.set(way.name, sorted.at(-1) ?? Number.NaN)
    values.p99.set(way.name, sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN)
    Ways.stop(way)
  }
  const figures = pauseNames.map((name, at): Figure => {
    const of = at === 0 ? values.longest : values.p99
    return { name, unit: "ms", better: "less", values: Object.fromEntries(of) }
  })
  return { figures, idle: 0, failed: 0 }
}
const pauseNames = [
  "longest pause of garbage collection, new visitors",
  "pause of garbage collection, new visitors, p99"
]

/** All ways are measured at the same time, so that each gets the same time to settle. */
const idle = async ({ idle, target, visitors }: Options): Promise<Outcome> => {
  const ways: Array<Ways.Way> = []
  for (const kind of kinds) {
    const way = await Ways.served(await kind(target), visitors)
    ways.push(way)
    await visitors.run({ what: "visitors", port: way.port, concurrency: 32, millis: 300 })
  }
  await wait(1500)
  const use = () => ways.map(({ hops }) => hops.map((hop) => [Program.residentKiB(hop), Program.descriptors(hop)]))
  const before = use()
  const held: Array<number> = []
  let failed = 0
  for (const way of ways) {
    const outcome = await visitors.run({ what: "hold", port: way.port, count: idle })
    held.push(outcome["held"] ?? 0)
    if (way.name === "tunnel") failed = outcome["failed"] ?? 0
  }
  await wait(5000)
  const after = use()
  for (const way of ways) Ways.stop(way)
  await visitors.run({ what: "drop" })
  const each = (hop: number, what: number) =>
    Object.fromEntries(
      ways.map(({ name }, at) => {
        const grown = (after[at]?.[hop]?.[what] ?? Number.NaN) - (before[at]?.[hop]?.[what] ?? Number.NaN)
        return [name, grown / (held[at] ?? 0)]
      })
    )
  const figures = ["first", "second"].flatMap((hop, at): ReadonlyArray<Figure> => [
    { name: memoryName(hop), unit: "KiB", better: "less", asked: { value: 4 }, values: each(at, 0) },
    { name: descriptorsName(hop), unit: "1", better: "less", values: each(at, 1) }
  ])
  return { figures, idle: Math.min(...held), failed }
}
const memoryName = (hop: string) => `memory of an idle visitor, ${hop} hop`
const descriptorsName = (hop: string) => `descriptors of an idle visitor, ${hop} hop`

export const measure = async (options: Options): Promise<Outcome> => {
  const none: Outcome = { figures: [], idle: 0, failed: 0 }
  const names = ["first", "second"].flatMap((hop) => [memoryName(hop), descriptorsName(hop)])
  const start = options.only.test(startName) ? await startToFirst(options) : none
  const idlers = names.some((name) => options.only.test(name)) ? await idle(options) : none
  const paused = pauseNames.some((name) => options.only.test(name)) ? await pauses(options) : none
  return { ...idlers, figures: [...start.figures, ...paused.figures, ...idlers.figures] }
}
