/**
 * What an instance had carried at each moment, and the rates between: what a chart is drawn from.
 */
import type { Point } from "./Api.js"
import type { Shown } from "./State.js"

/** Bytes since the instance was made or reset, at an epoch millisecond. */
interface Sample {
  readonly time: number
  readonly rx: number
  readonly tx: number
}

export type Samples = ReadonlyArray<Sample>

/** The master's history. */
export const fromPoints = (points: ReadonlyArray<Point>): Samples =>
  points.map(({ tcprx, tcptx, time, udprx, udptx }) => ({ time, rx: tcprx + udprx, tx: tcptx + udptx }))

/** With what an event told; those too near to the one before change nothing. */
export const add = (samples: Samples, { since }: Shown): Samples => {
  const last = samples.at(-1)
  if (last === undefined) return [since]
  if (since.time - last.time < nearest) return samples
  // Nothing was told since, because nothing was carried until a moment ago.
  const quiet = since.time - last.time > longest ? [{ ...last, time: since.time - usual }] : []
  return [...samples, ...quiet, since].slice(-most)
}

/** Epoch seconds, and bytes a second in and out, up to `now` in epoch milliseconds. */
export const rates = (samples: Samples, now: number): [Array<number>, Array<number>, Array<number>] => {
  const data: [Array<number>, Array<number>, Array<number>] = [[], [], []]
  const put = (time: number, rx: number, tx: number) => {
    data[0].push(time / 1000)
    data[1].push(rx)
    data[2].push(tx)
  }
  samples.forEach((sample, at) => {
    const before = samples[at - 1]
    if (before === undefined) return
    const seconds = (sample.time - before.time) / 1000
    // A reset counts as nothing carried.
    put(sample.time, Math.max(0, sample.rx - before.rx) / seconds, Math.max(0, sample.tx - before.tx) / seconds)
  })
  const last = samples.at(-1)
  if (last !== undefined && now - last.time > longest) {
    put(last.time + usual, 0, 0)
    put(now, 0, 0)
  }
  return data
}

/** The history, and behind it what was told meanwhile. */
export const join = (history: Samples, live: Samples): Samples => {
  const last = history.at(-1)?.time ?? -Infinity
  return [...history, ...live.filter(({ time }) => time - last >= nearest)].slice(-most)
}

// internal

/** Milliseconds between two samples: at least, as a rule, and so many that something is left out. */
const nearest = 500
const usual = 5000
const longest = 8000
const most = 4000
