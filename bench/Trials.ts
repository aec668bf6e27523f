/**
 * The measurements: the job of one measurement, and the figures computed from all of its outcomes.
 */
import type { Outcome } from "./load.js"
import * as Program from "./Program.js"
import type { Asked, Figure } from "./Results.js"
import type { Visitors } from "./Stage.js"
import type { Way } from "./Ways.js"

export interface Trial {
  /** The ways that take part: plain ones, plain ones and peers, or those with TLS between the hops. */
  readonly ways: "plain" | "peers" | "secured"
  readonly figures: ReadonlyArray<
    Omit<Figure, "values"> & { readonly of: (outcomes: ReadonlyArray<Outcome>) => number }
  >
  readonly turn: (way: Way) => Promise<Outcome>
  /** Defaults to the rounds of the run. */
  readonly rounds?: number | undefined
}

export interface Options {
  /** Milliseconds of one measurement. */
  readonly millis: number
  readonly visitors: Visitors
  /** Visitors in a second process, for concurrent load. */
  readonly others: Visitors
}

const median = (field: string) => (outcomes: ReadonlyArray<Outcome>) => {
  const values = outcomes.map((outcome) => outcome[field] ?? Number.NaN).filter((value) => !Number.isNaN(value))
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN
}

/** CPU seconds of all measurements divided by all their bytes: a single one is too short for a clock of 1/100 s. */
const cpuPerGiB = (outcomes: ReadonlyArray<Outcome>) => {
  const whole = outcomes.filter(({ cpu, mebibytes }) => cpu !== undefined && mebibytes !== undefined)
  const sum = (field: string) => whole.reduce((sum, outcome) => sum + (outcome[field] ?? 0), 0)
  return sum("cpu") === 0 ? Number.NaN : sum("cpu") / (sum("mebibytes") / 1024)
}

/** Microseconds of CPU time of both hops for each visitor, over all measurements. */
const cpuPerVisitor = (outcomes: ReadonlyArray<Outcome>) => {
  const sum = (field: string) => outcomes.reduce((sum, outcome) => sum + (outcome[field] ?? 0), 0)
  return sum("cpu") === 0 ? Number.NaN : (sum("cpu") / sum("served")) * 1e6
}

export const make = ({ millis, others, visitors }: Options): ReadonlyArray<Trial> => {
  const throughput = (what: "sink" | "source", streams: number, ways: Trial["ways"], asked: Asked): Trial => {
    const to = what === "sink" ? "to the target" : "to the visitor"
    const moving = `${streams} ${streams === 1 ? "stream" : "streams"} ${to}`
    const prefix = ways === "secured" ? "TLS, " : ""
    return {
      ways,
      figures: [
        {
          name: `${prefix}throughput, ${moving}`,
          unit: "MiB/s",
          better: "more",
          asked,
          of: median("rate")
        },
        {
          name: `${prefix}CPU of both hops, ${moving}`,
          unit: "s/GiB",
          better: "less",
          asked: ways === "secured" ? undefined : { pipes: 0.5 },
          of: cpuPerGiB
        }
      ],
      turn: async (way) => {
        const before = Program.cpuSeconds(way.hops)
        const outcome = await visitors.run({ what, port: way.port, streams, millis })
        return { ...outcome, cpu: Program.cpuSeconds(way.hops) - before }
      }
    }
  }
  const visits = (concurrency: number, ways: Trial["ways"], asked?: Asked): Trial => ({
    ways,
    figures: [
      {
        name: `${ways === "secured" ? "TLS, " : ""}new visitors, ${concurrency} at a time`,
        unit: "1/s",
        better: "more",
        asked,
        of: median("rate")
      },
      {
        name: `${ways === "secured" ? "TLS, " : ""}CPU of both hops a visitor, ${concurrency} at a time`,
        unit: "µs",
        better: "less",
        asked: asked?.rathole === undefined ? undefined : { rathole: 0.65 },
        of: cpuPerVisitor
      }
    ],
    turn: async ({ hops, port }) => {
      const before = Program.cpuSeconds(hops)
      const outcome = await visitors.run({ what: "visitors", port, concurrency, millis })
      return { ...outcome, cpu: Program.cpuSeconds(hops) - before }
    }
  })
  const burst = (count: number): Trial => ({
    ways: "peers",
    rounds: 3,
    figures: [
      {
        name: `${count} visitors at once, to the last`,
        unit: "ms",
        better: "less",
        asked: { rathole: 1 },
        of: median("millis")
      }
    ],
    turn: ({ port }) => visitors.run({ what: "burst", port, count })
  })
  const latency = (name: string, turn: Trial["turn"], asked?: Asked): Trial => ({
    ways: "peers",
    figures: [
      { name: `${name}, p50`, unit: "µs", better: "less", asked, of: median("p50") },
      { name: `${name}, p99`, unit: "µs", better: "less", of: median("p99") }
    ],
    turn
  })
  const roundTrips = ({ port }: Way) => visitors.run({ what: "latency", port, millis })
  const roundTripsBesideBulk = async (way: Way) => {
    const bulk = others.run({ what: "sink", port: way.port, streams: 1, millis: millis * 1.4 })
    await new Promise((resolve) => setTimeout(resolve, millis / 5))
    const outcome = await roundTrips(way)
    await bulk
    return outcome
  }
  const bulk = { pipes: 1.7, direct: 0.6 }
  const secured = { pipes: 1.3 }
  return [
    throughput("sink", 1, "peers", bulk),
    throughput("source", 1, "peers", bulk),
    throughput("sink", 8, "peers", bulk),
    throughput("source", 8, "peers", bulk),
    burst(500),
    burst(1000),
    visits(1, "peers"),
    visits(32, "peers", { pipes: 1.8, rathole: 1.1 }),
    visits(256, "peers", { rathole: 1.2 }),
    latency("64-byte round trip, idle", roundTrips, { pipes: 1, rathole: 1.1 }),
    latency("64-byte round trip, beside bulk", roundTripsBesideBulk),
    {
      ways: "plain",
      figures: [{ name: "UDP, 1200-byte datagrams echoed", unit: "1/s", better: "more", of: median("rate") }],
      turn: ({ port }) => visitors.run({ what: "datagrams", port, bytes: 1200, millis })
    },
    throughput("sink", 1, "secured", secured),
    throughput("source", 1, "secured", secured),
    throughput("source", 8, "secured", secured),
    visits(32, "secured")
  ]
}
