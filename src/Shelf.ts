/**
 * The idle connections of a pool, and who waits for one. Each is watched while it lies here and handed out once.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { ConnectionId } from "./Signal.js"
import type { Connection } from "./Transport.js"

/** The shelf was closed: its session is over. */
export class ShelfClosed extends Schema.TaggedError<ShelfClosed>()("ShelfClosed", {}) {
  override get message(): string {
    return "the session is over"
  }
}

/** A connection to hand out. Whoever takes it closes `scope`, and with it the connection. */
export interface Entry {
  readonly id: ConnectionId
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

export interface Shelf {
  /** Hands the connection to whoever has waited longest, or keeps it until it is taken or dies. */
  readonly add: (entry: Entry) => Effect.Effect<void>
  /** The connection that has been idle longest; waits while there is none. The caller's scope owns it. */
  readonly takeAny: Effect.Effect<Entry, ShelfClosed, Scope.Scope>
  /** The connection of this name; waits until it arrives. The caller's scope owns it. */
  readonly take: (id: ConnectionId) => Effect.Effect<Entry, ShelfClosed, Scope.Scope>
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
   * an end, which is given `grace` to be claimed.
   */
  readonly expect: "nothing" | "bytes"
  readonly grace: Duration.Duration
  /** Called when a connection was handed out or died, and when a taker begins to wait. */
  readonly onDemand: () => void
}

interface Kept {
  readonly entry: Entry
  readonly watch: Fiber.RuntimeFiber<void> | undefined
}

interface Waiter {
  readonly give: (kept: Kept) => void
  readonly fail: () => void
}

/** A shelf that its scope empties. */
export const make = (options: Options): Effect.Effect<Shelf, never, Scope.Scope> =>
  Effect.gen(function* () {
    const idle = new Map<ConnectionId, Kept>()
    const anyone = new Set<Waiter>()
    const named = new Map<ConnectionId, Waiter>()
    const leaving = new Set<ConnectionId>()
    let open = true
    let taken = 0

    const trim = (limit: number) =>
      Effect.suspend(() => {
        const surplus = Array.from(idle.values()).slice(0, Math.max(0, idle.size - limit))
        for (const { entry } of surplus) forget(entry.id)
        return Effect.forEach(surplus, ({ entry }) => discard(entry), { discard: true })
      })

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        open = false
        for (const waiter of [...anyone, ...named.values()]) waiter.fail()
        return trim(0)
      })
    )

    const keeps = (entry: Entry) => idle.get(entry.id)?.entry === entry

    const drop = (entry: Entry) =>
      Effect.suspend(() => {
        if (!keeps(entry)) return Effect.void
        forget(entry.id)
        options.onDemand()
        return discard(entry)
      })

    /** It may still be claimed, and does not count as idle. */
    const ended = (entry: Entry) =>
      Effect.sync(() => {
        if (keeps(entry)) leaving.add(entry.id)
        options.onDemand()
      })

    const forget = (id: ConnectionId) => {
      idle.delete(id)
      leaving.delete(id)
    }

    const watch = (entry: Entry): Effect.Effect<void> =>
      Effect.matchEffect(entry.connection.peek, {
        onFailure: () => drop(entry),
        onSuccess: (said) =>
          options.expect === "nothing"
            ? drop(entry)
            : said === "End"
              ? Effect.zipRight(ended(entry), Effect.delay(drop(entry), options.grace))
              : Effect.void
      })

    const add = (entry: Entry) =>
      Effect.suspend(() => {
        if (!open) return discard(entry)
        const waiter = options.expect === "bytes" ? named.get(entry.id) : first(anyone)
        if (waiter !== undefined) {
          // In one piece with the choice, or another connection could be given to the same waiter.
          waiter.give({ entry, watch: undefined })
          return Effect.void
        }
        idle.set(entry.id, { entry, watch: undefined })
        return Effect.map(Effect.forkIn(watch(entry), entry.scope), (watch) => {
          if (keeps(entry)) idle.set(entry.id, { entry, watch })
        })
      })

    const claim = (
      pick: () => Kept | undefined,
      wait: (waiter: Waiter) => () => void
    ): Effect.Effect<Entry, ShelfClosed, Scope.Scope> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const slot: { held?: Kept } = {}
          yield* Effect.addFinalizer((exit) =>
            slot.held === undefined ? Effect.void : Scope.close(slot.held.entry.scope, exit)
          )
          const ready = open ? pick() : undefined
          if (ready !== undefined) slot.held = ready
          else if (!open) return yield* new ShelfClosed()
          const held =
            ready ??
            (yield* restore(
              Effect.async<Kept, ShelfClosed>((resume) => {
                const cancel = wait({
                  give: (kept) => {
                    slot.held = kept
                    cancel()
                    resume(Effect.succeed(kept))
                  },
                  fail: () => {
                    cancel()
                    resume(Effect.fail(new ShelfClosed()))
                  }
                })
                options.onDemand()
                return Effect.sync(cancel)
              })
            ))
          forget(held.entry.id)
          taken++
          options.onDemand()
          if (held.watch !== undefined) yield* Fiber.interrupt(held.watch)
          return held.entry
        })
      )

    return {
      add,
      takeAny: claim(
        () => first(idle.values()),
        (waiter) => {
          anyone.add(waiter)
          return () => anyone.delete(waiter)
        }
      ),
      take: (id) =>
        claim(
          () => idle.get(id),
          (waiter) => {
            named.set(id, waiter)
            return () => named.get(id) === waiter && named.delete(id)
          }
        ),
      trim,
      kept: () => idle.size,
      idle: () => idle.size - leaving.size,
      waiting: () => anyone.size,
      taken: () => taken
    }
  })

// internal

/** By a reset: a launch may be under way to it, and its visitor must not take the end for an answer. */
const discard = ({ connection, scope }: Entry) => Effect.zipRight(connection.reset, Scope.close(scope, Exit.void))

const first = <A>(values: Iterable<A>): A | undefined => {
  for (const value of values) return value
  return undefined
}
