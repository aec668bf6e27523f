/**
 * One side of a simulated TCP connection, and the segments in transit to it.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Address from "../core/Address.js"

/** The path between two hosts, shared by their connections. Times in milliseconds. */
export interface Path {
  readonly latency: number
  /** Up to this much is added to the latency of each segment. */
  readonly jitter: number
  /** Segments that may wait to be read before a write waits. */
  readonly window: number
  /** Bytes in a segment, at most. */
  readonly segment: number
  /** The probability that a segment resets its connection instead of arriving. */
  readonly reset: number
  /** Whether everything in transit is held. */
  held: boolean
}

interface Segment {
  /** When it arrives: `Infinity` while it is held. */
  at: number
  /** `undefined` is the end. */
  readonly bytes: Uint8Array | undefined
}

/** One side of a connection. */
export interface Side {
  readonly local: Address.Address
  readonly remote: Address.Address
  status: "Open" | "Reset" | "TimedOut" | "Closed"
  /** Segments in transit, or received and not read, in order. */
  inbox: Array<Segment>
  /** Chunks that were put back. The next one to read is last. */
  readonly front: Array<Uint8Array>
  /** When a reset arrives. */
  resetAt: number
  resetHeld: boolean
  /** From when on everything that is sent to the side, or by it, is lost. */
  swallowedAt: number
  /** The end was read. */
  atEnd: boolean
  /** Bytes of a write that wait for room in the window. */
  unsent: number
  /** This side sent its end. */
  ended: boolean
  /** Counts changes, so that a reader misses none between `look` and waiting. */
  events: number
  readonly waiting: Set<() => void>
}

export const make = (local: Address.Address, remote: Address.Address): Side => ({
  local,
  remote,
  status: "Open",
  inbox: [],
  front: [],
  resetAt: Infinity,
  resetHeld: false,
  swallowedAt: Infinity,
  atEnd: false,
  unsent: 0,
  ended: false,
  events: 0,
  waiting: new Set()
})

/** The status, after everything due has arrived. */
export const statusOf = (side: Side, now: number): Side["status"] => {
  if (side.status === "Open" && isDue(side.resetAt, now)) side.status = "Reset"
  return side.status
}

/** What a read would return. */
export const look = (side: Side, now: number): "Bytes" | "End" | "Nothing" | Exclude<Side["status"], "Open"> => {
  const status = statusOf(side, now)
  if (status === "Closed") return status
  if (side.front.length > 0) return "Bytes"
  if (side.atEnd) return "End"
  if (status !== "Open") return status
  const [segment] = side.inbox
  if (segment === undefined || !isDue(segment.at, now)) return "Nothing"
  return segment.bytes === undefined ? "End" : "Bytes"
}

/** Sends bytes to the side, or the end. What is lost counts as in transit: the sender's window fills up. */
export const deliver = (path: Path, side: Side, bytes: Uint8Array | undefined, now: number, delay: number): void => {
  // A segment that is due before an earlier one waits behind it in the queue.
  const at = path.held || isSwallowed(side) ? Infinity : now + delay
  side.inbox.push({ at, bytes })
  wake(side)
}

/** Sends a reset to the side. It takes effect at that time, before unread bytes. */
export const deliverReset = (path: Path, side: Side, at: number): void => {
  if (isSwallowed(side)) return
  if (path.held) side.resetHeld = true
  else side.resetAt = Math.min(side.resetAt, at)
  wake(side)
}

/** Holds everything in transit to the side. */
export const hold = (side: Side, now: number): void => {
  for (const segment of side.inbox) if (!isDue(segment.at, now)) segment.at = Infinity
  side.resetHeld ||= Number.isFinite(side.resetAt) && !isDue(side.resetAt, now)
  if (side.resetHeld) side.resetAt = Infinity
}

/** Delivers everything that was held, in order. */
export const release = (path: Path, side: Side, now: number): void => {
  if (isSwallowed(side)) return
  for (const segment of side.inbox) {
    if (!Number.isFinite(segment.at)) segment.at = now + path.latency
  }
  if (side.resetHeld) side.resetAt = now + path.latency
  side.resetHeld = false
  wake(side)
}

/** Loses everything in transit to the side, and all that is sent from now on. */
export const swallow = (side: Side, now: number): void => {
  hold(side, now)
  side.resetHeld = false
  side.swallowedAt = Math.min(side.swallowedAt, now)
  wake(side)
}

export const isSwallowed = (side: Pick<Side, "swallowedAt">): boolean => Number.isFinite(side.swallowedAt)

/** Closes the side: nothing reaches it any more. */
export const shut = (side: Side): void => {
  side.status = "Closed"
  side.inbox = []
  side.front.length = 0
  wake(side)
}

/** Wakes the fibers that wait for a change. */
export const wake = (side: Pick<Side, "events" | "waiting">): void => {
  side.events++
  for (const resume of Array.from(side.waiting)) resume()
}

/** Waits for a change of the side, or until the next arrival that is known. */
export const untilChange = (
  side: Pick<Side, "events" | "resetAt" | "waiting">,
  clock: Clock.Clock,
  at = Infinity
): Effect.Effect<void> => {
  const next = Math.min(at, side.resetAt)
  if (Number.isFinite(next)) return Effect.sleep(next - clock.unsafeCurrentTimeMillis())
  const { events } = side
  return Effect.async<void>((resume) => {
    if (side.events !== events) return resume(Effect.void)
    const wake = () => {
      side.waiting.delete(wake)
      resume(Effect.void)
    }
    side.waiting.add(wake)
    return Effect.sync(() => side.waiting.delete(wake))
  })
}

// internal

// Smaller differences are rounding: the clock counts whole nanoseconds.
const isDue = (at: number, now: number): boolean => at - now < 1e-6
