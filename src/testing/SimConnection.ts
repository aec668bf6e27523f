/**
 * One simulated TCP connection: two sides, and the segments in transit between them.
 *
 * No fiber carries the segments. Each has a time of arrival, and its reader sleeps until then. So nothing happens in a world
 * whose fibers have ended, and a world in which every fiber waits is a deadlock.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Address from "../core/Address.js"
import { type Connection, type Reason, TransportError } from "../transport/Transport.js"
import { deliver, deliverReset, look, type Path, shut, type Side, statusOf, untilChange, wake } from "./SimSide.js"
import * as SimSide from "./SimSide.js"

export interface Pair {
  readonly path: Path
  readonly client: Side
  readonly server: Side
}

export const make = (path: Path, client: Address.Address, server: Address.Address): Pair => ({
  path,
  client: SimSide.make(client, server),
  server: SimSide.make(server, client)
})

/** The connection as seen from one of its sides. */
export const connectionOf = (pair: Pair, mine: Side): Connection => {
  const { path } = pair
  const theirs = mine === pair.client ? pair.server : pair.client
  const fail = (operation: "read" | "write", reason: Reason) =>
    Effect.fail(new TransportError({ operation, reason, address: mine.remote }))

  /** Waits until `read` would complete without waiting; what it would return. `since`: when the watch began. */
  const readable = (since: number): Effect.Effect<"Bytes" | "End" | "Failure"> =>
    Clock.clockWith((clock) => {
      const now = clock.unsafeCurrentTimeMillis()
      const timesOutAt = Math.max(since, mine.swallowedAt) + silenceMillis
      if (mine.status === "Open" && now >= timesOutAt) mine.status = "TimedOut"
      const seen = look(mine, now)
      if (seen === "Nothing") {
        return Effect.zipRight(
          untilChange(mine, clock, Math.min(mine.inbox[0]?.at ?? Infinity, timesOutAt)),
          readable(since)
        )
      }
      return Effect.succeed(seen === "Bytes" || seen === "End" ? seen : "Failure")
    })
  const read: Connection["read"] = Clock.clockWith(
    (clock): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
      const seen = look(mine, clock.unsafeCurrentTimeMillis())
      if (seen === "Nothing") return Effect.zipRight(untilChange(mine, clock, mine.inbox[0]?.at), read)
      if (seen !== "Bytes" && seen !== "End") return fail("read", seen)
      const bytes = seen === "End" ? undefined : (mine.front.pop() ?? mine.inbox.shift()?.bytes)
      wake(theirs)
      if (bytes !== undefined) return Effect.succeedSome(bytes)
      mine.atEnd = true
      return Effect.succeedNone
    }
  )

  /** The latency of the next segment, or that it resets the connection. */
  const outcome: Effect.Effect<number | "Reset"> = Effect.gen(function* () {
    if (path.reset > 0 && (yield* Random.next) < path.reset) return "Reset"
    return path.latency + (path.jitter > 0 ? (yield* Random.next) * path.jitter : 0)
  })
  const send = (bytes: Uint8Array): Effect.Effect<void, TransportError> =>
    Clock.clockWith((clock) => {
      const status = statusOf(mine, clock.unsafeCurrentTimeMillis())
      if (status !== "Open") return fail("write", status)
      if (mine.ended) return fail("write", "Closed")
      mine.unsent = bytes.length
      if (bytes.length === 0) return Effect.void
      if (theirs.inbox.length >= path.window) return Effect.zipRight(untilChange(mine, clock, undefined), send(bytes))
      return Effect.flatMap(cut(bytes, path.segment), (length) =>
        Effect.flatMap(outcome, (delay) => {
          const now = clock.unsafeCurrentTimeMillis()
          if (delay === "Reset" && !SimSide.isSwallowed(theirs)) sever(pair, now)
          else deliver(path, theirs, bytes.subarray(0, length), now, delay === "Reset" ? 0 : delay)
          if (theirs.status === "Closed") deliverReset(path, mine, now + 2 * path.latency)
          return send(bytes.subarray(length))
        })
      )
    })

  return {
    local: mine.local,
    remote: mine.remote,
    read,
    // In a fiber: no timer announces the arrival of a segment, a reader sleeps until then.
    watch: (listener) =>
      Effect.flatMap(Clock.currentTimeMillis, (since) =>
        Effect.map(Effect.forkDaemon(Effect.interruptible(Effect.map(readable(since), listener))), Fiber.interrupt)
      ),
    unread: (chunk) => {
      if (chunk.length > 0) mine.front.push(chunk)
    },
    write: send,
    unsent: () => mine.unsent,
    end: Clock.clockWith((clock) => {
      const now = clock.unsafeCurrentTimeMillis()
      const status = statusOf(mine, now)
      if (mine.ended) return Effect.void
      if (status !== "Open") return fail("write", status)
      sendEnd(path, mine, theirs, now)
      return Effect.void
    }),
    reset: Effect.map(Clock.currentTimeMillis, (now) => drop(pair, mine, now))
  }
}

/**
 * Closes one side, as its scope does. What was written still arrives, followed by an end. If bytes are unread or still in
 * transit to this side, the peer is reset.
 */
export const close = (pair: Pair, mine: Side, now: number): void => {
  const { path } = pair
  const theirs = mine === pair.client ? pair.server : pair.client
  if (statusOf(mine, now) === "Open") {
    if (!mine.ended) sendEnd(path, mine, theirs, now)
    const unread = mine.inbox.find(({ bytes }) => bytes !== undefined)
    if (unread !== undefined) deliverReset(path, theirs, Math.max(now, unread.at) + path.latency)
  }
  shut(mine)
  wake(theirs)
}

/** Closes one side, and resets the other. */
export const drop = (pair: Pair, mine: Side, now: number): void => {
  const theirs = mine === pair.client ? pair.server : pair.client
  if (statusOf(mine, now) === "Open") deliverReset(pair.path, theirs, now + pair.path.latency)
  shut(mine)
}

/** Resets both sides at once, as a middlebox may do. */
export const sever = ({ client, server }: Pair, now: number): void => {
  for (const side of [client, server]) {
    side.resetAt = Math.min(side.resetAt, now)
    wake(side)
  }
}

/** Loses all that is in transit and all that is sent from now on, as a middlebox may do that forgot the connection. */
export const swallow = ({ client, server }: Pair, now: number): void => {
  SimSide.swallow(client, now)
  SimSide.swallow(server, now)
}

/** Whether either side is still open. */
export const isLive = ({ client, server }: Pair, now: number): boolean =>
  statusOf(client, now) === "Open" || statusOf(server, now) === "Open"

/** Holds everything in transit to either side. */
export const hold = ({ client, server }: Pair, now: number): void => {
  SimSide.hold(client, now)
  SimSide.hold(server, now)
}

/** Delivers everything that was held, in order. */
export const release = ({ client, path, server }: Pair, now: number): void => {
  SimSide.release(path, client, now)
  SimSide.release(path, server, now)
}

// internal

/** After so much silence of a peer that should answer, a watched connection has failed. */
const silenceMillis = 9000

/** The length of the next segment: all of the bytes, or if they do not fit, a random length. */
const cut = (bytes: Uint8Array, maxBytes: number): Effect.Effect<number> =>
  bytes.length <= maxBytes ? Effect.succeed(bytes.length) : Random.nextIntBetween(1, maxBytes + 1)

const sendEnd = (path: Path, mine: Side, theirs: Side, now: number): void => {
  mine.ended = true
  deliver(path, theirs, undefined, now, path.latency)
}
