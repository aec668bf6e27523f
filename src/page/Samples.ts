/**
 * Byte counts of an instance over time, and the rates between them: the data of the chart.
 */
import type { Point } from "./Api.js"
import type { Shown } from "./State.js"

/** Bytes since the instance was created or reset. `time` is in epoch milliseconds. */
interface Sample {
  readonly time: number
  readonly rx: number
  readonly tx: number
}

export type Samples = ReadonlyArray<Sample>

/** Samples of the master's history. */
export const fromPoints = (points: ReadonlyArray<Point>): Samples =>
  points.map(({ tcprx, tcptx, time, udprx, udptx }) => ({ time, rx: tcprx + udprx, tx: tcptx + udptx }))

/** Adds the sample of an event, unless it is too close to the last one. */
export const add = (samples: Samples, { since }: Shown): Samples => {
  const last = samples.at(-1)
  if (last === undefined) return [since]
  if (since.time - last.time < minDistance) return samples
  // There were no events in between because the instance was idle.
  const idle = since.time - last.time > maxDistance ? [{ ...last, time: since.time - usualDistance }] : []
  return [...samples, ...idle, since].slice(-maxSamples)
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
    // A reset counts as no traffic.
    put(sample.time, Math.max(0, sample.rx - before.rx) / seconds, Math.max(0, sample.tx - before.tx) / seconds)
  })
  const last = samples.at(-1)
  if (last !== undefined && now - last.time > maxDistance) {
    put(last.time + usualDistance, 0, 0)
    put(now, 0, 0)
  }
  return data
}

/** The history, followed by the samples of events received meanwhile. */
export const join = (history: Samples, live: Samples): Samples => {
  const last = history.at(-1)?.time ?? -Infinity
  return [...history, ...live.filter(({ time }) => time - last >= minDistance)].slice(-maxSamples)
}

// internal

/** Milliseconds between two samples. */
const minDistance = 500
const usualDistance = 5000
/** A larger distance means that the instance was idle. */
const maxDistance = 8000
const maxSamples = 4000
