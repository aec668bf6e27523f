/**
 * Virtual time and chance of a world of streams: plain events, no fibers, so that thousands of worlds take seconds.
 */
import * as Timers from "../../../src/testing/Timers.js"

export class Clock {
  now = 0
  events = 0
  private readonly timers = Timers.make()
  private state: number

  constructor(seed: number) {
    this.state = seed | 0
  }

  /** Calls `event` so many milliseconds later, after all events that were set for the same time before. */
  after(millis: number, event: () => void) {
    this.at(this.now + millis, event)
  }
  at(time: number, event: () => void) {
    this.timers.add(time, event)
  }
  /** Runs the next event. Returns `false` when there is none. */
  step(): boolean {
    const next = this.timers.next()
    if (next === undefined) return false
    this.now = Math.max(this.now, next)
    this.events++
    this.timers.wake()
    return true
  }

  /** A number from 0 up to but not including 1. */
  random(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
  /** A whole number from 0 up to but not including `limit`. */
  below(limit: number): number {
    return Math.floor(this.random() * limit)
  }
  chance(probability: number): boolean {
    return probability > 0 && this.random() < probability
  }
}
