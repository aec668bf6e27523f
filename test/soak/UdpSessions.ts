/**
 * The memory of both processes of a tunnel, while it has many UDP sessions at once, and after them.
 */
import * as Timers from "node:timers/promises"
import { makeWorld, tunnel } from "../live/command/Nodepass.js"
import { listenUdp, visitUdp } from "../live/command/Udp.js"
import * as ProcessMemory from "./ProcessMemory.js"

/** The second crowd finds the heaps as large as the first one left them. */
const crowds = 2
/** The visitors come from so many networks, each of which may use a part of the slots only. */
const networks = 16
/** A visitor without an answer for so long has none. */
const answerMillis = 10_000
/** The most memory that a process may take for a session. */
const maxBytesPerSession = 96 * 1024
/** How much more memory may be in use after the second crowd than after the first. */
const tolerance = 0.05
/** Silence after which a session ends, and the time in which every session has certainly ended. */
const read = "60s"
const endedMillis = 75_000

/** Prints a table, and returns whether every session lasted and memory was bounded. */
export const run = async (sessions: number): Promise<boolean> => {
  const world = makeWorld()
  try {
    const peers = new Set<number>()
    const { port: target } = await listenUdp(world, (bytes, port) => {
      peers.add(port)
      return bytes
    })
    const { client, port, server } = await tunnel(world, {
      target,
      receiver: "server",
      query: `&read=${read}`,
      env: ProcessMemory.environment
    })
    const series = Object.entries({ server, client }).map(([side, process]) => ({
      side,
      process,
      peak: [0],
      after: [0]
    }))
    const measure = async () => {
      for (const { after, peak, process } of series) {
        peak.push(ProcessMemory.peakBytes(process))
        after.push(await ProcessMemory.bytesInUse(process))
      }
    }
    await measure()
    for (let crowd = 0; crowd < crowds; crowd++) {
      const own = makeWorld()
      try {
        await visitMany(own, port, sessions)
      } finally {
        await own.close()
      }
      await Timers.setTimeout(endedMillis)
      await measure()
    }
    ProcessMemory.printCells(`MiB, ${sessions} at once`, ["start", "crowd 1", "crowd 2"])
    const isBounded = series.map(({ after, peak, side }) => {
      const [, start = 0, ...crowdPeaks] = peak
      const [, , first = 0, second = 0] = after
      const perSession = (Math.max(...crowdPeaks) - start) / sessions
      ProcessMemory.print(`${side} peak`, peak.slice(1), `${(perSession / 1024).toFixed(1)} KiB each`)
      ProcessMemory.print(`${side} in use after`, after.slice(1), `${((second / first - 1) * 100).toFixed(1)} %`)
      return perSession <= maxBytesPerSession && second / first - 1 <= tolerance
    })
    // A session that ended early, and began again, has another port at the target.
    console.log(`${peers.size} sessions for ${crowds * sessions} visitors`)
    return isBounded.every((is) => is) && peers.size <= crowds * sessions
  } finally {
    await world.close()
  }
}

// internal

/** Each asks twice, which makes its session two-way, and once more when all sessions are there. */
const visitMany = async (world: ReturnType<typeof makeWorld>, port: number, sessions: number) => {
  const visitors: Array<Awaited<ReturnType<typeof visitUdp>>> = []
  const ask = async (some: typeof visitors) => {
    for (const { ask } of some) {
      const answer = await Promise.race([ask("a question"), Timers.setTimeout(answerMillis, "nothing", { ref: false })])
      if (String(answer) !== "a question") throw new Error(`a visitor received ${JSON.stringify(String(answer))}`)
    }
  }
  while (visitors.length < sessions) {
    const some = await Promise.all(
      Array.from({ length: 50 }, (_, at) => visitUdp(world, port, `127.0.${1 + (at % networks)}.1`))
    )
    await Promise.all(some.map((one) => ask([one, one])))
    visitors.push(...some)
  }
  await ask(visitors)
}
