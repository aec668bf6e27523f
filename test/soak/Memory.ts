/**
 * The memory of both processes of a tunnel, over rounds of many visitors: each asks for an echo and leaves.
 *
 * Resident memory rises until V8's heaps have the size that the load asks for, and then rises and falls with its
 * collections. So its peak in each round is compared, after visitors to warm up. What is in use shows what is kept of
 * visitors.
 */
import * as Net from "node:net"
import * as Timers from "node:timers/promises"
import { echoing, makeWorld, readAll, tunnel } from "../live/command/Nodepass.js"
import * as ProcessMemory from "./ProcessMemory.js"

/**
 * Visitors before the first round. Until then V8 compiles what visitors run, 1 MiB more, and forgets what only the start ran;
 * afterwards nothing grows, see docs/performance.md.
 */
const warmUp = 8000
/** After the warm-up. */
const rounds = 3
/** How much more memory the later rounds may take than the first: in use, and at the peak, where garbage waits for V8. */
const tolerance = { inUse: 0.05, peak: 0.1 }
/** Visitors at the same time. */
const concurrency = 64
/** How long both processes rest after a round. */
const pauseMillis = 10_000

/** Prints a table, and returns whether memory was flat. */
export const run = async (options: { readonly visitors: number; readonly tls: boolean }): Promise<boolean> => {
  const perRound = Math.ceil(options.visitors / rounds)
  const name = options.tls ? "tls=1" : "plain"
  const world = makeWorld()
  try {
    const { port: target } = await world.listen(echoing)
    const { client, port, server } = await tunnel(world, {
      target,
      receiver: "server",
      serverQuery: options.tls ? "&tls=1" : "",
      env: ProcessMemory.environment
    })
    const series = Object.entries({ server, client }).flatMap(([side, process]) =>
      [
        { label: `${name} ${side} peak`, read: async () => ProcessMemory.peakBytes(process), most: tolerance.peak },
        { label: `${name} ${side} in use`, read: () => ProcessMemory.bytesInUse(process), most: tolerance.inUse }
      ].map((one) => ({ ...one, bytes: new Array<number>() }))
    )
    for (let round = -1; round <= rounds; round++) {
      if (round >= 0) {
        await visitMany(port, round === 0 ? warmUp : perRound)
        await Timers.setTimeout(pauseMillis)
      }
      for (const { bytes, read } of series) bytes.push(await read())
    }
    const columns = ["start", "warm-up", ...Array.from({ length: rounds }, (_, at) => `round ${at + 1}`), "growth"]
    ProcessMemory.printCells(`MiB, ${perRound} a round`, columns)
    return series
      .map(({ bytes, label, most }) => {
        const [, , first = 0, ...later] = bytes
        const growth = Math.max(...later) / first - 1
        ProcessMemory.print(label, bytes, `${(100 * growth).toFixed(1)} %`)
        return growth <= most
      })
      .every((isFlat) => isFlat)
  } finally {
    await world.close()
  }
}

// internal

const visitMany = async (port: number, count: number) => {
  let left = count
  const visitInTurn = async () => {
    while (left-- > 0) {
      const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
      socket.end("a question")
      const answer = String(await readAll(socket))
      if (answer !== "a question") throw new Error(`a visitor received ${JSON.stringify(answer)}`)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, visitInTurn))
}
