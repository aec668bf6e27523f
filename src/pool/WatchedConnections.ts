/**
 * Pool connections while they are idle. Each is watched, and dropped when it fails or receives what it must not.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as FiberSet from "effect/FiberSet"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import type { ConnectionId } from "../wire/Signal.js"
import type { Connection } from "../transport/Transport.js"
import * as HandOutOrder from "./HandOutOrder.js"

/** A connection to hand out. Its taker closes `scope`, which closes the connection. */
export interface PoolConnection {
  readonly id: ConnectionId
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

/** A pool connection from its arrival until a taker has it. */
export interface Watched {
  readonly pooled: PoolConnection
  received: "Nothing" | "Bytes" | "End" | "Failure"
  unwatch: Effect.Effect<void>
  /** Cancels the deadline for its launch. */
  cancelDeadline: () => void
}

export interface WatchedConnections {
  /** Begins to watch a connection, which is not idle before `put`. */
  readonly watch: (pooled: PoolConnection) => Effect.Effect<Watched>
  readonly put: (watched: Watched) => void
  /** The named connection, unless the system knows that it is over: then it is dropped. */
  readonly get: (id: ConnectionId) => Watched | undefined
  /** The next connection to hand out. Those that the system knows to be over are dropped. */
  readonly next: () => Watched | undefined
  /** Removes the connection, which the caller closes. */
  readonly remove: (watched: Watched) => void
  /** Closes connections until `limit` remain: those that have been idle longest, and with `fastest` the slowest. */
  readonly trim: (limit: number) => Effect.Effect<void>
  /** Connections here, those included that no longer count as idle and wait for their launch. */
  readonly open: () => number
  readonly idle: () => number
}

export interface Options {
  /**
   * What a healthy connection may receive while it is idle.
   *
   * `nothing` on the side that takes any connection: the peer sends only after the launch. `bytes` on the side that
   * takes by name: the first bytes of a visitor, and its end, may overtake the launch.
   */
  readonly expect: "nothing" | "bytes"
  /** Which connection is handed out next. Defaults to `oldest`. */
  readonly order?: HandOutOrder.Order | undefined
  /** How long a connection that received bytes or an end is kept for its launch, which is late or was given up. */
  readonly launchTimeout: Duration.Duration
  /** Called when a connection was handed out or failed, and when a taker begins to wait. */
  readonly onDemand: () => void
}

/** Run `trim(0)` before its scope closes. */
export const make = ({
  expect,
  launchTimeout,
  onDemand,
  order = "oldest"
}: Options): Effect.Effect<WatchedConnections, never, Deadlines | Scope.Scope> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const run = yield* FiberSet.makeRuntime()
    /** For what was removed already: the end of the scope must not prevent it. */
    const runAlways = Runtime.runFork(yield* Effect.runtime())
    const stock = new Map<ConnectionId, Watched>()
    /** Those that received bytes or an end: a launch may still name them, and they do not count as idle. */
    const launching = new Set<ConnectionId>()
    const ordered = HandOutOrder.make(order, stock)
    let isMeasured = order === "fastest" ? undefined : true

    const contains = (watched: Watched) => stock.get(watched.pooled.id) === watched

    const remove = ({ pooled: { id } }: Watched) => {
      stock.get(id)?.cancelDeadline()
      stock.delete(id)
      launching.delete(id)
    }

    // What is removed must be closed.
    const drop = (watched: Watched) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          if (!contains(watched)) return Effect.void
          remove(watched)
          onDemand()
          return discard(watched)
        })
      )

    const trim = (limit: number) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          const surplus = ordered.surplus(stock.size - limit)
          for (const watched of surplus) remove(watched)
          return Effect.forEach(surplus, discard, { discard: true })
        })
      )

    /** Decides what becomes of a connection that has received something. */
    const update = (watched: Watched) => {
      if (!contains(watched) || watched.received === "Nothing") return
      const { id } = watched.pooled
      if (watched.received === "Failure" || expect === "nothing") run(drop(watched))
      else if (!launching.has(id)) {
        launching.add(id)
        onDemand()
        watched.cancelDeadline = deadlines.after(launchTimeout, drop(watched))
      }
    }

    const watch = (pooled: PoolConnection) =>
      Effect.suspend(() => {
        const watched: Watched = { pooled, received: "Nothing", unwatch: Effect.void, cancelDeadline: constVoid }
        const onReceived = (received: Watched["received"]) => {
          watched.received = received
          update(watched)
        }
        return Effect.map(pooled.connection.watch(onReceived), (unwatch) => {
          watched.unwatch = unwatch
          return watched
        })
      })

    const dropNow = (watched: Watched) => {
      remove(watched)
      onDemand()
      runAlways(discard(watched))
    }
    const next = (): Watched | undefined => {
      for (let found = ordered.first(); found !== undefined; found = ordered.first()) {
        if ((found.pooled.connection.inspect?.().state ?? "open") === "open") return found
        dropNow(found)
      }
      return undefined
    }
    const get = (id: ConnectionId): Watched | undefined => {
      const found = stock.get(id)
      // An end may have come before the launch, with bytes before it.
      if (found?.pooled.connection.inspect?.().state !== "over") return found
      dropNow(found)
      return undefined
    }

    return {
      watch,
      put: (watched: Watched) => {
        stock.set(watched.pooled.id, watched)
        ordered.add(watched)
        isMeasured ??= Number.isFinite(HandOutOrder.roundTripOf(watched.pooled.connection))
        if (!isMeasured) {
          isMeasured = true
          run(Effect.logWarning(unmeasured))
        }
        update(watched)
      },
      get,
      next,
      remove,
      trim,
      open: () => stock.size,
      idle: () => stock.size - launching.size
    }
  })

const unmeasured =
  "pool=fastest: this system does not measure the round trip of pool connections; the one that has been idle longest is handed out, as with pool=oldest"

/** Closes the connection with a reset: its launch may be on its way, and no visitor may take an end for an answer. */
export const discard = ({ pooled: { connection, scope }, unwatch }: Watched) =>
  Effect.zipRight(Effect.zipRight(unwatch, connection.reset), Scope.close(scope, Exit.void))
