/**
 * The idle connections of a pool, and who waits for one. Each is watched while it lies here and handed out once.
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

/** The shelf was closed: its session is over. */
export class PoolClosed extends Schema.TaggedError<PoolClosed>()("PoolClosed", {}) {
  override get message(): string {
    return "the session is over"
  }
}

/** The other side is away: this is no place to wait for a connection. */
export class PeerAway extends Schema.TaggedError<PeerAway>()("PeerAway", {}) {
  override get message(): string {
    return "the other side is away"
  }
}

/** No connection of that name came in time. */
export class NotArrived extends Schema.TaggedError<NotArrived>()("NotArrived", { id: ConnectionId }) {
  override get message(): string {
    return `no connection ${this.id} came`
  }
}

/** A connection to hand out. Whoever takes it closes `scope`, and with it the connection. */
export interface Entry {
  readonly id: ConnectionId
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

export interface IdleConnections {
  /** Hands the connection to whoever has waited longest, or keeps it until it is taken or dies. */
  readonly add: (entry: Entry) => Effect.Effect<void>
  /** The connection that has been idle longest; waits while there is none. The caller's scope owns it. */
  readonly takeAny: Effect.Effect<Entry, PoolClosed | PeerAway, Scope.Scope>
  /** The connection of this name; waits until it arrives, up to `grace`. The caller's scope owns it. */
  readonly take: (id: ConnectionId) => Effect.Effect<Entry, NotArrived | PoolClosed, Scope.Scope>
  /** Fails whoever waits for any connection with `PeerAway`. */
  readonly turnAway: () => void
  /** Closes what has been idle longest, down to this many; who waits goes on waiting. */
  readonly trim: (limit: number) => Effect.Effect<void>
  /** Connections kept, those included that have ended and may still be claimed. */
  readonly kept: () => number
  /** Connections idle now, takers of any who wait now, connections handed out so far. */
  readonly idle: () => number
  readonly waiting: () => number
  readonly taken: () => number
}

export interface Options {
  /**
   * What a healthy idle connection may say. `nothing` on the side that hands out any connection: it is asked for
   * before the peer speaks. `bytes` on the side that takes by name: the first bytes may overtake the name, and so may
   * an end.
   */
  readonly expect: "nothing" | "bytes"
  /** How long a name may wait for its connection. */
  readonly grace: Duration.Duration
  /** How long a connection that said something, or ended, may wait for its name: that is on its way, or was given up. */
  readonly claimable: Duration.Duration
  /** Called when a connection was handed out or died, and when a taker begins to wait. */
  readonly onDemand: () => void
}

interface Kept {
  readonly entry: Entry
  /** What it said while nobody had taken it. */
  heard: "Nothing" | "Bytes" | "End" | "Failure"
  unwatch: Effect.Effect<void>
  /** Ends the wait for its name. */
  settle: () => void
}

interface Waiter<E> {
  readonly give: (kept: Kept) => void
  readonly fail: (error: E) => void
}

/** A shelf that its scope empties. */
export const make = (options: Options): Effect.Effect<IdleConnections, never, Deadlines | Scope.Scope> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const run = yield* FiberSet.makeRuntime()
    const idle = new Map<ConnectionId, Kept>()
    const anyone = new Set<Waiter<PoolClosed | PeerAway>>()
    const named = new Map<ConnectionId, Waiter<PoolClosed | NotArrived>>()
    const leaving = new Set<ConnectionId>()
    let open = true
    let taken = 0

    // What is forgotten must be closed.
    const trim = (limit: number) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          const surplus = Array.from(idle.values()).slice(0, Math.max(0, idle.size - limit))
          for (const { entry } of surplus) forget(entry.id)
          return Effect.forEach(surplus, discard, { discard: true })
        })
      )

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        open = false
        for (const waiter of [...anyone, ...named.values()]) waiter.fail(new PoolClosed())
        return trim(0)
      })
    )

    const keeps = (kept: Kept) => idle.get(kept.entry.id) === kept

    const drop = (kept: Kept) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          if (!keeps(kept)) return Effect.void
          forget(kept.entry.id)
          options.onDemand()
          return discard(kept)
        })
      )

    const forget = (id: ConnectionId) => {
      idle.get(id)?.settle()
      idle.delete(id)
      leaving.delete(id)
    }

    const judge = (kept: Kept) => {
      if (!keeps(kept) || kept.heard === "Nothing") return
      if (kept.heard === "Failure" || options.expect === "nothing") run(drop(kept))
      else if (!leaving.has(kept.entry.id)) {
        // It may still be claimed, and does not count as idle.
        leaving.add(kept.entry.id)
        options.onDemand()
        kept.settle = deadlines.after(options.claimable, drop(kept))
      }
    }

    const watch = (kept: Kept) =>
      Effect.map(
        kept.entry.connection.watch((what) => {
          kept.heard = what
          judge(kept)
        }),
        (unwatch) => {
          kept.unwatch = unwatch
        }
      )

    const add = (entry: Entry) =>
      Effect.suspend(() => {
        const kept: Kept = { entry, heard: "Nothing", unwatch: Effect.void, settle: constVoid }
        // Watched before anybody can take it, or the taker's reads and the watch would meet.
        return Effect.flatMap(watch(kept), () => {
          if (!open) return discard(kept)
          const waiter = options.expect === "bytes" ? named.get(entry.id) : first(anyone)
          if (waiter === undefined) {
            idle.set(entry.id, kept)
            judge(kept)
          } else waiter.give(kept)
          return Effect.void
        })
      })

    const claim = <E>(
      pick: () => Kept | undefined,
      wait: (waiter: Waiter<E | PoolClosed>) => () => void
    ): Effect.Effect<Entry, E | PoolClosed, Scope.Scope> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.scopeWith((scope) => {
          let held: Kept | undefined
          // In one piece with the choice, or another visitor could make the same.
          const hold = (kept: Kept) => {
            held = kept
            forget(kept.entry.id)
            taken++
            options.onDemand()
            return Effect.as(kept.unwatch, kept.entry)
          }
          const found = Effect.suspend(() => {
            if (!open) return new PoolClosed()
            const ready = pick()
            if (ready !== undefined) return hold(ready)
            const arrival = Effect.async<Entry, E | PoolClosed>((resume) => {
              const cancel = wait({
                give: (kept) => {
                  cancel()
                  resume(hold(kept))
                },
                fail: (error) => {
                  cancel()
                  resume(Effect.fail(error))
                }
              })
              options.onDemand()
              return Effect.sync(cancel)
            })
            return restore(arrival)
          })
          const close = (exit: Exit.Exit<unknown, unknown>) =>
            held === undefined ? Effect.void : Scope.close(held.entry.scope, exit)
          return Effect.zipRight(Scope.addFinalizerExit(scope, close), found)
        })
      )

    return {
      add,
      takeAny: claim<PeerAway>(
        () => first(idle.values()),
        (waiter) => {
          anyone.add(waiter)
          return () => anyone.delete(waiter)
        }
      ),
      take: (id) =>
        claim<NotArrived>(
          () => idle.get(id),
          (waiter) => {
            named.set(id, waiter)
            const late = Effect.sync(() => waiter.fail(new NotArrived({ id })))
            const settle = deadlines.after(options.grace, late)
            return () => {
              settle()
              if (named.get(id) === waiter) named.delete(id)
            }
          }
        ),
      turnAway: () => {
        for (const waiter of Array.from(anyone)) waiter.fail(new PeerAway())
      },
      trim,
      kept: () => idle.size,
      idle: () => idle.size - leaving.size,
      waiting: () => anyone.size,
      taken: () => taken
    }
  })

// internal

/** By a reset: a launch may be under way to it, and its visitor must not take the end for an answer. */
const discard = ({ entry: { connection, scope }, unwatch }: Kept) =>
  Effect.zipRight(Effect.zipRight(unwatch, connection.reset), Scope.close(scope, Exit.void))

const first = <A>(values: Iterable<A>): A | undefined => {
  for (const value of values) return value
  return undefined
}
