/**
 * The idle connections of a pool, and the takers that wait for one. Each connection is handed out once.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import { ConnectionId } from "../wire/Signal.js"
import * as WatchedConnections from "./WatchedConnections.js"
import type { PoolConnection, Watched } from "./WatchedConnections.js"
import { withoutStack } from "../core/WithoutStack.js"

/** The session ended, and its pool with it. */
export class PoolClosed extends withoutStack(Schema.TaggedError<PoolClosed>()("PoolClosed", {})) {
  override get message(): string {
    return "the session ended and its pool is closed"
  }
}

/** The peer is not connected, so it opens no pool connection and takes no launch. */
export class PeerAway extends withoutStack(Schema.TaggedError<PeerAway>()("PeerAway", {})) {
  override get message(): string {
    return "the other side is not connected"
  }
}

/** The named connection did not arrive in time. */
export class NotArrived extends withoutStack(Schema.TaggedError<NotArrived>()("NotArrived", { id: ConnectionId })) {
  override get message(): string {
    return `pool connection ${this.id} did not arrive in time`
  }
}

export interface IdleConnections {
  /** Hands the connection to the taker that has waited longest, or keeps it until it is taken or fails. */
  readonly add: (pooled: PoolConnection) => Effect.Effect<void>
  /** Takes the connection that is next by `order`; waits while there is none. The caller's scope owns it. */
  readonly takeAny: Effect.Effect<PoolConnection, PoolClosed | PeerAway, Scope.Scope>
  /** Takes the named connection; waits up to `arrivalTimeout` until it arrives. The caller's scope owns it. */
  readonly take: (id: ConnectionId) => Effect.Effect<PoolConnection, NotArrived | PoolClosed, Scope.Scope>
  /**
   * Takes a connection without waiting: the named one, or the next by `order`; `undefined` when there is none.
   * The caller closes its scope.
   */
  readonly takeNow: (id?: ConnectionId) => PoolConnection | undefined
  /** Fails every taker that waits for any connection with `PeerAway`. */
  readonly rejectWaiting: () => void
  /** Closes connections until `limit` remain, see `WatchedConnections`. Takers go on waiting. */
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

export interface Options extends WatchedConnections.Options {
  /** How long a taker waits for the connection it named. */
  readonly arrivalTimeout: Duration.Duration
}

/** Closes all its connections with its scope. */
export const make = (options: Options): Effect.Effect<IdleConnections, never, Deadlines | Scope.Scope> =>
  Effect.gen(function* () {
    const stock = yield* WatchedConnections.make(options)
    const waiters = makeWaiters(yield* Deadlines, options.arrivalTimeout)
    const run = Runtime.runFork(yield* Effect.runtime())
    let closed = false
    let taken = 0

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        waiters.failAll(new PoolClosed())
        return stock.trim(0)
      })
    )

    const add = (pooled: PoolConnection) =>
      // Watched before a taker can have it: the taker's reads must not meet the watch.
      Effect.flatMap(stock.watch(pooled), (watched) => {
        if (closed) return WatchedConnections.discard(watched)
        const waiter = options.expect === "bytes" ? waiters.named(pooled.id) : waiters.longest()
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

    const takeNow = (id?: ConnectionId) => {
      if (closed || (id === undefined && waiters.count() > 0)) return undefined
      const watched = id === undefined ? stock.next() : stock.get(id)
      // What ends the watch runs at once.
      if (watched !== undefined) run(handOut(watched))
      return watched?.pooled
    }

    const takeBy = <E>(find: () => Watched | undefined, wait: Wait<E | PoolClosed>) =>
      owned(handOut, (own, restore): Effect.Effect<PoolConnection, E | PoolClosed> => {
        if (closed) return new PoolClosed()
        const ready = find()
        return ready === undefined ? restore(arrival(wait, own, options.onDemand)) : own(ready)
      })

    return {
      add,
      takeAny: takeBy(stock.next, waiters.waitForAny),
      take: (id) => takeBy(() => stock.get(id), waiters.waitFor(id)),
      takeNow,
      rejectWaiting: waiters.reject,
      trim: stock.trim,
      open: stock.open,
      idle: stock.idle,
      waiting: waiters.count,
      taken: () => taken
    }
  })

// internal

interface Waiter<E> {
  readonly give: (watched: Watched) => void
  readonly fail: (error: E) => void
}

/** Adds a waiter; the returned function removes it. */
type Wait<E> = (waiter: Waiter<E>) => () => void

/** The takers that wait, those of any connection in the order in which they came. */
const makeWaiters = (deadlines: Deadlines["Type"], arrivalTimeout: Duration.Duration) => {
  const unnamed = new Set<Waiter<PoolClosed | PeerAway>>()
  const named = new Map<ConnectionId, Waiter<PoolClosed | NotArrived>>()

  const waitForAny: Wait<PoolClosed | PeerAway> = (waiter) => {
    unnamed.add(waiter)
    return () => unnamed.delete(waiter)
  }
  const waitFor =
    (id: ConnectionId): Wait<PoolClosed | NotArrived> =>
    (waiter) => {
      named.set(id, waiter)
      const expire = Effect.sync(() => waiter.fail(new NotArrived({ id })))
      const cancelDeadline = deadlines.after(arrivalTimeout, expire)
      return () => {
        cancelDeadline()
        if (named.get(id) === waiter) named.delete(id)
      }
    }
  return {
    waitForAny,
    waitFor,
    longest: () => {
      for (const waiter of unnamed) return waiter
      return undefined
    },
    named: (id: ConnectionId) => named.get(id),
    reject: () => {
      for (const waiter of Array.from(unnamed)) waiter.fail(new PeerAway())
    },
    failAll: (error: PoolClosed) => {
      for (const waiter of [...unnamed, ...named.values()]) waiter.fail(error)
    },
    count: () => unnamed.size
  }
}

type Own = (watched: Watched) => Effect.Effect<PoolConnection>
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Takes a connection that the caller's scope closes, also when the taker is interrupted before it has it. */
const owned = <E>(
  handOut: Own,
  choose: (own: Own, restore: Restore) => Effect.Effect<PoolConnection, E>
): Effect.Effect<PoolConnection, E, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.scopeWith((scope) => {
      let chosen: PoolConnection | undefined
      const own = (watched: Watched) => {
        chosen = watched.pooled
        return handOut(watched)
      }
      const close = (exit: Exit.Exit<unknown, unknown>) =>
        chosen === undefined ? Effect.void : Scope.close(chosen.scope, exit)
      return Effect.zipRight(
        Scope.addFinalizerExit(scope, close),
        Effect.suspend(() => choose(own, restore))
      )
    })
  )

/** Waits until the pool gives a connection to this taker, or fails it. */
const arrival = <E>(wait: Wait<E>, own: Own, onDemand: () => void): Effect.Effect<PoolConnection, E> =>
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
