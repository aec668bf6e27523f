/**
 * One side of a simulated TCP connection, and what is on its way to it.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Address from "../core/Address.js"

/** The way between two hosts, shared by their connections. Times in milliseconds. */
export interface Path {
  readonly latency: number
  /** Up to this much is added to the latency of each segment. */
  readonly jitter: number
  /** Segments that may wait for the other side's reader before a write waits. */
  readonly window: number
  /** Bytes in the largest segment. */
  readonly segment: number
  /** The chance that a segment resets its connection instead of arriving. */
  readonly reset: number
  /** Whether everything stays on its way. */
  held: boolean
}

interface Segment {
  /** When it arrives: `Infinity` while it is held. */
  at: number
  /** Nothing is the end. */
  readonly bytes: Uint8Array | undefined
}

/** One end of a connection, with all that is on its way to it. */
export interface Side {
  readonly local: Address.Address
  readonly remote: Address.Address
  status: "Open" | "Reset" | "Closed"
  /** What is on its way, or arrived and was not read, in order. */
  inbox: Array<Segment>
  /** What was read and put back, the next one last. */
  readonly front: Array<Uint8Array>
  /** When a reset arrives. */
  resetAt: number
  resetHeld: boolean
  /** The end was read. */
  atEnd: boolean
  /** Bytes of a write that the window has not let pass yet. */
  unsent: number
  /** This side said its end. */
  ended: boolean
  /** Counts what happened, so that nothing does unseen between a look and a wait. */
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
  atEnd: false,
  unsent: 0,
  ended: false,
  events: 0,
  waiting: new Set()
})

/** Whether it still takes part, now that everything due has arrived. */
export const statusOf = (side: Side, now: number): Side["status"] => {
  if (side.status === "Open" && isDue(side.resetAt, now)) side.status = "Reset"
  return side.status
}

/** What a read would find. */
export const look = (side: Side, now: number): "Bytes" | "End" | "Nothing" | "Reset" | "Closed" => {
  const status = statusOf(side, now)
  if (status === "Closed") return status
  if (side.front.length > 0) return "Bytes"
  if (side.atEnd) return "End"
  if (status === "Reset") return status
  const [segment] = side.inbox
  if (segment === undefined || !isDue(segment.at, now)) return "Nothing"
  return segment.bytes === undefined ? "End" : "Bytes"
}

/** Sends it bytes, or the end. */
export const deliver = (path: Path, side: Side, bytes: Uint8Array | undefined, now: number, delay: number): void => {
  // One that is due before the one in front of it waits for it in the queue.
  const at = path.held ? Infinity : now + delay
  side.inbox.push({ at, bytes })
  wake(side)
}

/** Sends it a reset that arrives then, before everything unread. */
export const deliverReset = (path: Path, side: Side, at: number): void => {
  if (path.held) side.resetHeld = true
  else side.resetAt = Math.min(side.resetAt, at)
  wake(side)
}

/** Stops what is on its way to it. */
export const hold = (side: Side, now: number): void => {
  for (const segment of side.inbox) if (!isDue(segment.at, now)) segment.at = Infinity
  side.resetHeld ||= Number.isFinite(side.resetAt) && !isDue(side.resetAt, now)
  if (side.resetHeld) side.resetAt = Infinity
}

/** Lets what was held arrive, in order. */
export const release = (path: Path, side: Side, now: number): void => {
  for (const segment of side.inbox) {
    if (!Number.isFinite(segment.at)) segment.at = now + path.latency
  }
  if (side.resetHeld) side.resetAt = now + path.latency
  side.resetHeld = false
  wake(side)
}

/** Ends its part: nothing reaches it any more. */
export const shut = (side: Side): void => {
  side.status = "Closed"
  side.inbox = []
  side.front.length = 0
  wake(side)
}

/** Tells whoever waits that something happened. */
export const wake = (side: Pick<Side, "events" | "waiting">): void => {
  side.events++
  for (const resume of Array.from(side.waiting)) resume()
}

/** Waits for something to happen to the side, or for what is known to arrive. */
export const untilNews = (
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

// The clock counts whole nanoseconds, and sums of fractions of a millisecond miss by less.
const isDue = (at: number, now: number): boolean => at - now < 1e-6
