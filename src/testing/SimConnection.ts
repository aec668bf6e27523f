/**
 * One simulated TCP connection: two sides, and what is on its way between them.
 *
 * No fiber carries the segments. Each says when it arrives, and whoever waits for it sleeps until then; so a world
 * whose fibers have ended is at rest, and one in which all wait for nothing is a deadlock.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Address from "../Address.js"
import { type Connection, type Reason, TransportError } from "../Transport.js"

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
  /** When the last segment sent to it arrives. */
  last: number
  /** When a reset arrives. */
  resetAt: number
  resetHeld: boolean
  /** The end was read. */
  atEnd: boolean
  /** This side said its end. */
  ended: boolean
  /** Counts what happened, so that nothing does unseen between a look and a wait. */
  events: number
  readonly waiting: Set<() => void>
}

export interface Pair {
  readonly path: Path
  readonly client: Side
  readonly server: Side
}

export const make = (path: Path, client: Address.Address, server: Address.Address): Pair => ({
  path,
  client: makeSide(client, server),
  server: makeSide(server, client)
})

/** The connection as seen from one of its sides. */
export const connectionOf = (pair: Pair, mine: Side): Connection => {
  const { path } = pair
  const theirs = mine === pair.client ? pair.server : pair.client
  const fail = (operation: "read" | "write", reason: Reason) =>
    Effect.fail(new TransportError({ operation, reason, address: mine.remote }))

  const peek: Connection["peek"] = Clock.clockWith((clock) => {
    const seen = look(mine, clock.unsafeCurrentTimeMillis())
    if (seen === "Nothing") return Effect.zipRight(untilNews(mine, clock, mine.inbox[0]?.at), peek)
    return seen === "Bytes" || seen === "End" ? Effect.succeed(seen) : fail("read", seen)
  })
  const read: Connection["read"] = Clock.clockWith(
    (clock): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
      const seen = look(mine, clock.unsafeCurrentTimeMillis())
      if (seen === "Nothing") return Effect.zipRight(untilNews(mine, clock, mine.inbox[0]?.at), read)
      if (seen === "Reset" || seen === "Closed") return fail("read", seen)
      const bytes = seen === "End" ? undefined : (mine.front.pop() ?? mine.inbox.shift()?.bytes)
      wake(theirs)
      if (bytes !== undefined) return Effect.succeedSome(bytes)
      mine.atEnd = true
      return Effect.succeedNone
    }
  )

  /** How long this segment is under way, or that it never arrives. */
  const fate: Effect.Effect<number | "Reset"> = Effect.gen(function* () {
    if (path.reset > 0 && (yield* Random.next) < path.reset) return "Reset"
    return path.latency + (path.jitter > 0 ? (yield* Random.next) * path.jitter : 0)
  })
  const send = (bytes: Uint8Array): Effect.Effect<void, TransportError> =>
    Clock.clockWith((clock) => {
      const status = statusOf(mine, clock.unsafeCurrentTimeMillis())
      if (status !== "Open") return fail("write", status)
      if (mine.ended) return fail("write", "Closed")
      if (bytes.length === 0) return Effect.void
      if (theirs.inbox.length >= path.window) return Effect.zipRight(untilNews(mine, clock, undefined), send(bytes))
      return Effect.flatMap(cut(bytes, path.segment), (length) =>
        Effect.flatMap(fate, (delay) => {
          const now = clock.unsafeCurrentTimeMillis()
          if (delay === "Reset") sever(pair, now)
          else deliver(path, theirs, bytes.subarray(0, length), now, delay)
          if (theirs.status === "Closed") deliverReset(path, mine, now + 2 * path.latency)
          return send(bytes.subarray(length))
        })
      )
    })

  return {
    local: mine.local,
    remote: mine.remote,
    read,
    peek,
    unread: (chunk) => {
      if (chunk.length > 0) mine.front.push(chunk)
    },
    write: send,
    end: Clock.clockWith((clock) => {
      const now = clock.unsafeCurrentTimeMillis()
      const status = statusOf(mine, now)
      if (mine.ended) return Effect.void
      if (status !== "Open") return fail("write", status)
      sayEnd(path, mine, theirs, now)
      return Effect.void
    }),
    reset: Effect.map(Clock.currentTimeMillis, (now) => drop(pair, mine, now))
  }
}

/**
 * Closes one side as its scope does: what was written still arrives, with an end behind it, unless bytes were left
 * unread or are still to come, for which the peer is reset.
 */
export const close = (pair: Pair, mine: Side, now: number): void => {
  const { path } = pair
  const theirs = mine === pair.client ? pair.server : pair.client
  if (statusOf(mine, now) === "Open") {
    if (!mine.ended) sayEnd(path, mine, theirs, now)
    const unread = mine.inbox.find(({ bytes }) => bytes !== undefined)
    if (unread !== undefined) deliverReset(path, theirs, Math.max(now, unread.at) + path.latency)
  }
  shut(mine)
  wake(theirs)
}

/** Closes one side so that the other sees a reset. */
export const drop = (pair: Pair, mine: Side, now: number): void => {
  const theirs = mine === pair.client ? pair.server : pair.client
  if (statusOf(mine, now) === "Open") deliverReset(pair.path, theirs, now + pair.path.latency)
  shut(mine)
}

/** Resets both sides at once, as a box in between may. */
export const sever = ({ client, server }: Pair, now: number): void => {
  for (const side of [client, server]) {
    side.resetAt = Math.min(side.resetAt, now)
    wake(side)
  }
}

/** Whether either side would still take part. */
export const isLive = ({ client, server }: Pair, now: number): boolean =>
  statusOf(client, now) === "Open" || statusOf(server, now) === "Open"

/** Stops what is on its way to either side. */
export const hold = ({ client, server }: Pair, now: number): void => {
  for (const side of [client, server]) {
    for (const segment of side.inbox) if (!isDue(segment.at, now)) segment.at = Infinity
    side.resetHeld ||= Number.isFinite(side.resetAt) && !isDue(side.resetAt, now)
    if (side.resetHeld) side.resetAt = Infinity
  }
}

/** Lets what was held arrive, in order. */
export const release = ({ client, path, server }: Pair, now: number): void => {
  for (const side of [client, server]) {
    for (const segment of side.inbox) {
      if (Number.isFinite(segment.at)) continue
      side.last = segment.at = Math.max(side.last, now + path.latency)
    }
    if (side.resetHeld) side.resetAt = now + path.latency
    side.resetHeld = false
    wake(side)
  }
}

// internal

const makeSide = (local: Address.Address, remote: Address.Address): Side => ({
  local,
  remote,
  status: "Open",
  inbox: [],
  front: [],
  last: 0,
  resetAt: Infinity,
  resetHeld: false,
  atEnd: false,
  ended: false,
  events: 0,
  waiting: new Set()
})

// The clock counts whole nanoseconds, and sums of fractions of a millisecond miss by less.
const isDue = (at: number, now: number): boolean => at - now < 1e-6

const statusOf = (side: Side, now: number): Side["status"] => {
  if (side.status === "Open" && isDue(side.resetAt, now)) side.status = "Reset"
  return side.status
}

const look = (side: Side, now: number): "Bytes" | "End" | "Nothing" | "Reset" | "Closed" => {
  const status = statusOf(side, now)
  if (status === "Closed") return status
  if (side.front.length > 0) return "Bytes"
  if (side.atEnd) return "End"
  if (status === "Reset") return status
  const [segment] = side.inbox
  if (segment === undefined || !isDue(segment.at, now)) return "Nothing"
  return segment.bytes === undefined ? "End" : "Bytes"
}

const wake = (side: Side): void => {
  side.events++
  for (const resume of Array.from(side.waiting)) resume()
}

/** Waits for something to happen to the side, or for what is known to arrive. */
const untilNews = (side: Side, clock: Clock.Clock, at = Infinity): Effect.Effect<void> => {
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

/** The length of the next segment: all that fits, and cut at random where it does not. */
const cut = (bytes: Uint8Array, most: number): Effect.Effect<number> =>
  bytes.length <= most ? Effect.succeed(bytes.length) : Random.nextIntBetween(1, most + 1)

const deliver = (path: Path, side: Side, bytes: Uint8Array | undefined, now: number, delay: number): void => {
  const at = path.held ? Infinity : Math.max(side.last, now + delay)
  if (!path.held) side.last = at
  side.inbox.push({ at, bytes })
  wake(side)
}

const deliverReset = (path: Path, side: Side, at: number): void => {
  if (path.held) side.resetHeld = true
  else side.resetAt = Math.min(side.resetAt, at)
  wake(side)
}

const sayEnd = (path: Path, mine: Side, theirs: Side, now: number): void => {
  mine.ended = true
  deliver(path, theirs, undefined, now, path.latency)
}

const shut = (side: Side): void => {
  side.status = "Closed"
  side.inbox = []
  side.front.length = 0
  wake(side)
}
