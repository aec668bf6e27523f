/**
 * The traffic of an instance over time, for charts: all points of the last 15 minutes, one a minute for 6 hours.
 */
import * as Schema from "effect/Schema"
import { Traffic } from "./Instance.js"

export const Point = Schema.Struct({
  /** Epoch milliseconds. */
  time: Schema.Number,
  ...Traffic.fields,
  /** Visitors at that time. */
  tcps: Schema.Number,
  udps: Schema.Number
}).annotations({
  identifier: "TrafficPoint",
  description: "bytes are sums since the instance was created or its traffic was reset"
})
export type Point = typeof Point.Type

export interface TrafficHistory {
  /** Adds a point and drops those that are too old. */
  readonly add: (point: Point) => void
  /** Points from `since` (epoch milliseconds) on, oldest first, at least `step` milliseconds apart. */
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
      if (fine.length > maxFinePoints) fine = fine.slice(-maxFinePoints)
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
/** Limit of points at full resolution, for short report intervals. */
const maxFinePoints = 900
