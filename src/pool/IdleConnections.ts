/**
 * The idle connections of a pool, and the takers that wait for one. Each connection is watched while it is idle, and is
 * handed out once.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as FiberSet from "effect/FiberSet"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import { ConnectionId } from "../wire/Signal.js"
import type { Connection } from "../transport/Transport.js"

/** The session ended, and its pool with it. */
export class PoolClosed extends Schema.TaggedError<PoolClosed>()("PoolClosed", {}) {
  override get message(): string {
    return "the session ended and its pool is closed"
  }
}

/** The peer is not connected, so it opens no pool connection and takes no launch. */
export class PeerAway extends Schema.TaggedError<PeerAway>()("PeerAway", {}) {
  override get message(): string {
    return "the other side is not connected"
  }
}

/** The named connection did not arrive in time. */
export class NotArrived extends Schema.TaggedError<NotArrived>()("NotArrived", { id: ConnectionId }) {
  override get message(): string {
    return `pool connection ${this.id} did not arrive in time`
  }
}

/** A connection to hand out. Its taker closes `scope`, which closes the connection. */
export interface PoolConnection {
  readonly id: ConnectionId
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

export interface IdleConnections {
  /** Hands the connection to the taker that has waited longest, or keeps it until it is taken or fails. */
  readonly add: (pooled: PoolConnection) => Effect.Effect<void>
  /** Takes the connection that has been idle longest; waits while there is none. The caller's scope owns it. */
  readonly takeAny: Effect.Effect<PoolConnection, PoolClosed | PeerAway, Scope.Scope>
  /** Takes the named connection; waits up to `arrivalTimeout` until it arrives. The caller's scope owns it. */
  readonly take: (id: ConnectionId) => Effect.Effect<PoolConnection, NotArrived | PoolClosed, Scope.Scope>
  /** Fails every taker that waits for any connection with `PeerAway`. */
  readonly rejectWaiting: () => void
  /** Closes the connections that have been idle longest until `limit` remain. Takers go on waiting. */
  readonly trim: (limit: number) => Effect.Effect<void>
  /** Open connections, those included that no longer count as idle and wait for their launch. */
  readonly open: () => number
  /** Connections idle now. */
  readonly idle: () => number
  /** Takers that wait for any connection now. */
  readonly waiting: () => number
  /** Connections handed out so far. */
  readonly taken: () => number
}

export interface Options {
  /**
   * What a healthy connection may receive while it is idle.
   *
   * `nothing` on the side that takes any connection: the peer sends only after the launch. `bytes` on the side that
   * takes by name: the first bytes of a visitor, and its end, may overtake the launch.
   */
  readonly expect: "nothing" | "bytes"
  /** How long a taker waits for the connection it named. */
  readonly arrivalTimeout: Duration.Duration
  /** How long a connection that received bytes or an end is kept for its launch, which is late or was given up. */
  readonly launchTimeout: Duration.Duration
  /** Called when a connection was handed out or failed, and when a taker begins to wait. */
  readonly onDemand: () => void
}

/** Closes all its connections with its scope. */
export const make = (options: Options): Effect.Effect<IdleConnections, never, Deadlines | Scope.Scope> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const stock = yield* makeStock(options)
    const unnamed = new Set<Waiter<PoolClosed | PeerAway>>()
    const named = new Map<ConnectionId, Waiter<PoolClosed | NotArrived>>()
    let closed = false
    let taken = 0

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        for (const waiter of [...unnamed, ...named.values()]) waiter.fail(new PoolClosed())
        return stock.trim(0)
      })
    )

    const add = (pooled: PoolConnection) =>
      // Watched before anybody can take it: the taker's reads must not meet the watch.
      Effect.flatMap(stock.watch(pooled), (watched) => {
        if (closed) return discard(watched)
        const waiter = options.expect === "bytes" ? named.get(pooled.id) : first(unnamed)
        if (waiter === undefined) stock.put(watched)
        else waiter.give(watched)
        return Effect.void
      })

    /** Runs in one step with the choice: no other taker can choose the same connection in between. */
    const handOut = (watched: Watched) => {
      stock.remove(watched)
      taken++
      options.onDemand()
      return Effect.as(watched.unwatch, watched.pooled)
    }

    const takeBy = <E>(
      find: () => Watched | undefined,
      wait: (waiter: Waiter<E | PoolClosed>) => () => void
    ): Effect.Effect<PoolConnection, E | PoolClosed, Scope.Scope> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.scopeWith((scope) => {
          let owned: PoolConnection | undefined
          const own = (watched: Watched) => {
            owned = watched.pooled
            return handOut(watched)
          }
          const found = Effect.suspend(() => {
            if (closed) return new PoolClosed()
            const ready = find()
            return ready === undefined ? restore(arrival(wait, own, options.onDemand)) : own(ready)
          })
          const close = (exit: Exit.Exit<unknown, unknown>) =>
            owned === undefined ? Effect.void : Scope.close(owned.scope, exit)
          return Effect.zipRight(Scope.addFinalizerExit(scope, close), found)
        })
      )

    const waitForAny = (waiter: Waiter<PoolClosed | PeerAway>) => {
      unnamed.add(waiter)
      return () => unnamed.delete(waiter)
    }

    const waitFor = (id: ConnectionId) => (waiter: Waiter<PoolClosed | NotArrived>) => {
      named.set(id, waiter)
      const expire = Effect.sync(() => waiter.fail(new NotArrived({ id })))
      const cancelDeadline = deadlines.after(options.arrivalTimeout, expire)
      return () => {
        cancelDeadline()
        if (named.get(id) === waiter) named.delete(id)
      }
    }

    return {
      add,
      takeAny: takeBy(stock.oldest, waitForAny),
      take: (id) => takeBy(() => stock.get(id), waitFor(id)),
      rejectWaiting: () => {
        for (const waiter of Array.from(unnamed)) waiter.fail(new PeerAway())
      },
      trim: stock.trim,
      open: stock.open,
      idle: stock.idle,
      waiting: () => unnamed.size,
      taken: () => taken
    }
  })

// internal

/** A connection of the pool from its arrival until a taker has it. */
interface Watched {
  readonly pooled: PoolConnection
  received: "Nothing" | "Bytes" | "End" | "Failure"
  unwatch: Effect.Effect<void>
  /** Cancels the deadline for its launch. */
  cancelDeadline: () => void
}

interface Waiter<E> {
  readonly give: (watched: Watched) => void
  readonly fail: (error: E) => void
}

/** Waits until the pool gives a connection to this taker, or fails it. */
const arrival = <E>(
  wait: (waiter: Waiter<E>) => () => void,
  own: (watched: Watched) => Effect.Effect<PoolConnection>,
  onDemand: () => void
): Effect.Effect<PoolConnection, E> =>
  Effect.async((resume) => {
    const cancel = wait({
      give: (watched) => {
        cancel()
        resume(own(watched))
      },
      fail: (error) => {
        cancel()
        resume(Effect.fail(error))
      }
    })
    onDemand()
    return Effect.sync(cancel)
  })

/** The connections that wait for a taker, the one idle longest first. A connection that fails here is dropped. */
const makeStock = ({ expect, launchTimeout, onDemand }: Options) =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const run = yield* FiberSet.makeRuntime()
    const stock = new Map<ConnectionId, Watched>()
    /** Those that received bytes or an end: a launch may still name them, and they do not count as idle. */
    const launching = new Set<ConnectionId>()

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
          const surplus = Array.from(stock.values()).slice(0, Math.max(0, stock.size - limit))
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

    return {
      watch,
      put: (watched: Watched) => {
        stock.set(watched.pooled.id, watched)
        update(watched)
      },
      get: (id: ConnectionId) => stock.get(id),
      oldest: () => first(stock.values()),
      remove,
      trim,
      open: () => stock.size,
      idle: () => stock.size - launching.size
    }
  })

/** Closes with a reset: a launch may be on its way to this connection, and its visitor must not take an end for an answer. */
const discard = ({ pooled: { connection, scope }, unwatch }: Watched) =>
  Effect.zipRight(Effect.zipRight(unwatch, connection.reset), Scope.close(scope, Exit.void))

const first = <A>(values: Iterable<A>): A | undefined => {
  for (const value of values) return value
  return undefined
}
