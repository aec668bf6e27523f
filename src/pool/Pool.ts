/**
 * Connections between the two sides, opened and authenticated before anybody needs them, each handed out once.
 *
 * The client opens them (`DialingPool`), the server takes them in (`AcceptingPool`). Whichever side visitors come to
 * takes any idle one and names it to the other, which takes it by that name.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { EventBus } from "../core/EventBus.js"
import type { Settings } from "../transport/Settings.js"
import type * as IdleConnections from "./IdleConnections.js"
import { ConnectionId } from "../wire/Signal.js"
import type { Connection } from "../transport/Transport.js"

/** The peer named a connection that died, was flushed or never arrived. */
export class NotPooled extends Schema.TaggedError<NotPooled>()("NotPooled", { id: ConnectionId }) {
  override get message(): string {
    return `pool connection ${this.id} is gone`
  }
}

export interface Stats {
  /** Connections ready to be handed out. */
  readonly idle: number
  /** Idle connections the pool tends to; on the accepting side, all it would take in. */
  readonly capacity: number
  /** Visitors who wait for a connection. */
  readonly waiting: number
}

export class Pool extends Context.Tag("nodepass/Pool")<
  Pool,
  {
    /** Takes the connection that has been idle longest; waits while there is none. The caller's scope owns it. */
    readonly takeAny: Effect.Effect<
      { readonly id: ConnectionId; readonly connection: Connection },
      IdleConnections.PoolClosed | IdleConnections.PeerAway,
      Scope.Scope
    >
    /** Fails every taker that waits for any connection with `PeerAway`. */
    readonly rejectWaiting: () => void
    /**
     * Takes the connection the peer named. The caller's scope owns it.
     *
     * A name may come before its connection does, so this waits up to `handshakeTimeout`, then fails with `NotPooled`.
     */
    readonly take: (id: ConnectionId) => Effect.Effect<Connection, NotPooled, Scope.Scope>
    /** Opens this many connections at once, as far as the capacity allows; no-op where the other side opens them. */
    readonly warm: (count: number) => Effect.Effect<void>
    /** Closes idle connections down to this many, where visitors come to this side; no-op where they do not. */
    readonly trim: (limit: number) => Effect.Effect<void>
    readonly stats: Effect.Effect<Stats>
  }
>() {}

export interface Options {
  /** Idle connections at most. */
  readonly max: number
  /** Whether visitors come to this side, which then takes any connection, or to the other, which names one. */
  readonly visitors: "local" | "remote"
}

/** The options of the idle connections, which both kinds of pool share. */
export const idleOptions = (
  { visitors }: Options,
  { handshakeTimeout, poolGetTimeout }: Settings["Type"]
): Pick<IdleConnections.Options, "arrivalTimeout" | "expect" | "launchTimeout"> => ({
  expect: visitors === "local" ? "nothing" : "bytes",
  arrivalTimeout: handshakeTimeout,
  // The sender of a launch gives it up after the same time.
  launchTimeout: Duration.sum(poolGetTimeout, handshakeTimeout)
})

/** Says where the pool stands when it became empty, is so no longer, or has another capacity; to be run after changes. */
export const levels = (stats: () => Stats): Effect.Effect<Effect.Effect<void>, never, EventBus> =>
  Effect.map(EventBus, (events) => {
    let before = stats()
    return Effect.suspend(() => {
      const now = stats()
      if (now.capacity === before.capacity && (now.idle === 0) === (before.idle === 0)) return Effect.void
      before = now
      return events.publish(() => ({ _tag: "PoolLevel", ...now }))
    })
  })

/** The operations that both kinds of pool share. */
export const operations = (
  connections: IdleConnections.IdleConnections,
  { visitors }: Options
): Pick<Pool["Type"], "take" | "takeAny" | "trim" | "rejectWaiting"> => ({
  takeAny: connections.takeAny,
  rejectWaiting: connections.rejectWaiting,
  take: (id) =>
    Effect.mapBoth(connections.take(id), {
      onFailure: () => new NotPooled({ id }),
      onSuccess: ({ connection }) => connection
    }),
  // Only the side that hands connections out can close one and hit no launch under way.
  trim: (limit) => (visitors === "local" ? connections.trim(limit) : Effect.void)
})
