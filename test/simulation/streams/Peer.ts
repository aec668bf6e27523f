/**
 * A visitor or a target: the other end of a stream's connection. It sends bytes that its number determines, and checks
 * those that it receives.
 */
import * as NonBlocking from "../../../src/transport/NonBlocking.js"
import type { Clock } from "./Clock.js"
import type { End } from "./Link.js"

export interface Plan {
  /** How many bytes it sends, and how many at a time. */
  readonly bytes: number
  readonly chunkBytes: number
  /** How long it waits between two chunks. */
  readonly pauseMillis: number
  readonly reads: "Fast" | "Slowly" | "Never"
  /** When it half-closes, once all is sent. */
  readonly ends: "Sent" | "AfterTheirEnd"
}

export class Peer implements NonBlocking.Owner {
  readonly name: string
  readonly plan: Plan
  private readonly clock: Clock
  private readonly end: End
  /** Determines the bytes that it sends, and those that it has to receive. */
  private readonly sends: number
  private readonly expects: number
  sent = 0
  private pausesUntil = 0
  received = 0
  hasEnded = false
  /** It has received the other's end, or a reset. */
  sawEnd = false
  sawReset = false
  hasReset = false
  /** When it was done: both ends, or a reset. */
  doneAt: number | undefined

  constructor(name: string, clock: Clock, end: End, plan: Plan, sends: number, expects: number) {
    this.name = name
    this.clock = clock
    this.end = end
    this.plan = plan
    this.sends = sends
    this.expects = expects
  }

  start() {
    this.end.setOwner(this)
    this.ready(true, true)
  }
  reset() {
    if (this.isOver()) return
    this.hasReset = true
    this.doneAt = this.clock.now
    this.end.reset()
  }
  isOver() {
    return this.doneAt !== undefined
  }

  ready(readable: boolean, writable: boolean) {
    if (readable && this.plan.reads !== "Never") this.readAll()
    if (writable) this.writeAll()
  }
  private readAll() {
    while (!this.isOver() && !this.sawEnd) {
      const count = this.end.read(buffer, 0, this.plan.reads === "Slowly" ? 700 : buffer.length)
      if (count === NonBlocking.nothing) return
      if (count === NonBlocking.broken) return this.seeReset()
      if (count === 0) {
        this.sawEnd = true
        this.writeAll()
        return this.closeIfDone()
      }
      const expected = contentAt(this.expects, this.received, count)
      if (Buffer.compare(buffer.subarray(0, count), expected) !== 0) {
        throw new Error(`${this.name} received wrong bytes at ${this.received}`)
      }
      this.received += count
      if (this.plan.reads === "Slowly") {
        this.clock.after(2, () => this.ready(true, false))
        return
      }
    }
  }
  private writeAll() {
    const { bytes, chunkBytes, pauseMillis } = this.plan
    while (!this.isOver() && this.sent < bytes) {
      if (pauseMillis > 0 && this.clock.now < this.pausesUntil) return
      // So many chunks and pauses at most.
      const least = pauseMillis === 0 ? bytes >> 9 : bytes >> 6
      const size = Math.min(bytes - this.sent, Math.max(chunkBytes, least))
      const taken = this.end.write(contentAt(this.sends, this.sent, size), 0, size)
      if (taken === NonBlocking.broken) return this.seeReset()
      this.sent += taken
      if (pauseMillis > 0) {
        this.pausesUntil = this.clock.now + pauseMillis
        this.clock.after(pauseMillis, () => this.writeAll())
      }
      if (taken < size) return
    }
    if (this.isOver() || this.hasEnded || (this.plan.ends === "AfterTheirEnd" && !this.sawEnd)) return
    this.hasEnded = true
    this.end.shutdown()
    this.closeIfDone()
  }
  private seeReset() {
    this.sawReset = true
    this.doneAt = this.clock.now
    this.end.reset()
  }
  private closeIfDone() {
    if (this.isOver() || !this.hasEnded || !this.sawEnd) return
    this.doneAt = this.clock.now
    this.end.close()
  }
}

// internal

const buffer = new Uint8Array(64 * 1024)

/** Bytes that do not repeat within any window. */
const periodBytes = 1_048_573
const content = new Uint8Array(periodBytes + 64 * 1024)
for (let at = 0, state = 1; at < periodBytes; at++) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) | 0
  content[at] = state >>> 16
}
content.copyWithin(periodBytes, 0, 64 * 1024)

const contentAt = (seed: number, offset: number, size: number): Uint8Array => {
  const from = (seed * 7919 + offset) % periodBytes
  return content.subarray(from, from + size)
}
