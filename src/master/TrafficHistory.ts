/**
 * How an instance's traffic went, for charts: fine for the last quarter of an hour, coarse for six hours before.
 */
import * as Schema from "effect/Schema"
import { Traffic } from "./Instance.js"

export const Point = Schema.Struct({
  /** Epoch milliseconds. */
  time: Schema.Number,
  ...Traffic.fields,
  /** Visitors at that moment. */
  tcps: Schema.Number,
  udps: Schema.Number
}).annotations({ identifier: "TrafficPoint", description: "bytes are sums since the instance was made or reset" })
export type Point = typeof Point.Type

export interface TrafficHistory {
  /** Keeps a point; those too old are forgotten. */
  readonly add: (point: Point) => void
  /** Points from `since` on, oldest first, at least `step` milliseconds apart. */
  readonly read: (since: number, step: number) => ReadonlyArray<Point>
}

export const make = (): TrafficHistory => {
  let fine: Array<Point> = []
  let coarse: Array<Point> = []
  const from = (time: number) => (point: Point) => point.time >= time
  return {
    add: (point) => {
      const oldest = fine[0]
      fine.push(point)
      if (oldest !== undefined && oldest.time < point.time - fineSpan) {
        const last = coarse.at(-1)
        if (last === undefined || oldest.time - last.time >= coarseStep) coarse.push(oldest)
        fine = fine.filter(from(point.time - fineSpan))
        coarse = coarse.filter(from(point.time - coarseSpan))
      }
      if (fine.length > most) fine = fine.slice(-most)
    },
    read: (since, step) => {
      let last = -Infinity
      return [...coarse, ...fine].filter(({ time }) => {
        if (time < since || time - last < step) return false
        last = time
        return true
      })
    }
  }
}

// internal

const fineSpan = 15 * 60_000
const coarseStep = 60_000
const coarseSpan = 6 * 3_600_000
/** However short the interval. */
const most = 900
