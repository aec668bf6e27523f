/**
 * Connections between the two sides, opened and authenticated before a visitor needs one. Each is handed out once.
 *
 * The client opens them (`DialingPool`), the server accepts them (`AcceptingPool`). The side that visitors connect to
 * takes any idle connection and sends its id in a launch; the other side takes it by that id.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { EventBus } from "../core/EventBus.js"
import type { Settings } from "../transport/Settings.js"
import type { Order } from "./HandOutOrder.js"
import type * as IdleConnections from "./IdleConnections.js"
import { ConnectionId } from "../wire/Signal.js"
import type { Connection } from "../transport/Transport.js"
import type { PoolConnection } from "./WatchedConnections.js"
import { withoutStack } from "../core/WithoutStack.js"

/** The launched connection failed, was flushed or did not arrive in time. */
export class NotPooled extends withoutStack(Schema.TaggedError<NotPooled>()("NotPooled", { id: ConnectionId })) {
  override get message(): string {
    return `pool connection ${this.id} was closed or did not arrive in time`
  }
}

export interface Stats {
  /** Connections ready to be handed out. */
  readonly idle: number
  /** Connections that the pool keeps idle; on the accepting side, the most that it accepts. */
  readonly capacity: number
  /** Visitors that wait for a connection. */
  readonly waiting: number
}

export class Pool extends Context.Tag("nodepass/Pool")<
  Pool,
  {
    /** Takes the connection that is next by `order`; waits while there is none. The caller's scope owns it. */
    readonly takeAny: Effect.Effect<
      { readonly id: ConnectionId; readonly connection: Connection },
      IdleConnections.PoolClosed | IdleConnections.PeerAway,
      Scope.Scope
    >
    /** Fails every taker that waits for any connection with `PeerAway`. */
    readonly rejectWaiting: () => void
    /**
     * Takes the connection that the peer launched. The caller's scope owns it.
     *
     * A launch may arrive before its connection, so this waits up to `handshakeTimeout`, then fails with `NotPooled`.
     */
    readonly take: (id: ConnectionId) => Effect.Effect<Connection, NotPooled, Scope.Scope>
    /**
     * Takes a connection without waiting: the one that the peer launched, or without an id the next by `order`.
     * `undefined` when there is none. The caller closes its scope.
     */
    readonly takeNow: (id?: ConnectionId) => PoolConnection | undefined
    /** Opens this many connections now, as far as `max` allows; does nothing on the accepting side. */
    readonly warm: (count: number) => Effect.Effect<void>
    /** Closes idle connections until `limit` remain; does nothing where visitors connect to the other side. */
    readonly trim: (limit: number) => Effect.Effect<void>
    /** Closes every idle connection, wherever visitors connect: the other end has ended with its process, or they died in silence. */
    readonly discard: Effect.Effect<void>
    /** Opens no more connections, and gives up those that are being opened: the session ends. */
    readonly stop: Effect.Effect<void>
    readonly stats: Effect.Effect<Stats>
  }
>() {}

export interface Options {
  /** The most idle connections. */
  readonly max: number
  /** Which side visitors connect to: `local` takes any connection, `remote` the one that the peer launched. */
  readonly visitors: "local" | "remote"
  /** Which idle connection is handed out next, where visitors connect to this side. Defaults to `oldest`. */
  readonly order?: Order | undefined
}

/** The options of the idle connections, which both kinds of pool share. */
export const idleOptions = (
  { order, visitors }: Options,
  { handshakeTimeout, poolGetTimeout }: Settings["Type"]
): Pick<IdleConnections.Options, "arrivalTimeout" | "expect" | "launchTimeout" | "order"> => ({
  order: visitors === "local" ? order : "oldest",
  expect: visitors === "local" ? "nothing" : "bytes",
  arrivalTimeout: handshakeTimeout,
  // The sender of a launch gives it up after the same time.
  launchTimeout: Duration.sum(poolGetTimeout, handshakeTimeout)
})

/**
 * The figures of a pool, and what publishes `PoolLevel` when the pool became empty, is no longer empty, or has another
 * capacity. Run `publish` after changes; it also runs when the scope closes the connections.
 */
export const makeLevel = (
  connections: IdleConnections.IdleConnections,
  capacity: () => number
): Effect.Effect<
  { readonly stats: () => Stats; readonly publish: Effect.Effect<void> },
  never,
  EventBus | Scope.Scope
> =>
  Effect.gen(function* () {
    const events = yield* EventBus
    const stats = (): Stats => ({ idle: connections.idle(), capacity: capacity(), waiting: connections.waiting() })
    let last = stats()
    const publish = Effect.suspend(() => {
      const now = stats()
      if (now.capacity === last.capacity && (now.idle === 0) === (last.idle === 0)) return Effect.void
      last = now
      return events.publish(() => ({ _tag: "PoolLevel", ...now }))
    })
    yield* Effect.addFinalizer(() => Effect.zipRight(connections.trim(0), publish))
    return { stats, publish }
  })

/** The operations that both kinds of pool share. */
export const operations = (
  connections: IdleConnections.IdleConnections,
  { visitors }: Options
): Pick<Pool["Type"], "take" | "takeAny" | "takeNow" | "trim" | "discard" | "rejectWaiting"> => ({
  takeAny: connections.takeAny,
  takeNow: connections.takeNow,
  rejectWaiting: connections.rejectWaiting,
  take: (id) =>
    Effect.mapBoth(connections.take(id), {
      onFailure: () => new NotPooled({ id }),
      onSuccess: ({ connection }) => connection
    }),
  discard: connections.trim(0),
  // Only the side that takes any connection can close one without hitting a launch on its way.
  trim: (limit) => (visitors === "local" ? connections.trim(limit) : Effect.void)
})
