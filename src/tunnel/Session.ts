/**
 * What two sides have agreed on: the signal bus, over one control connection after the other, the pool, and the launches
 * that come in.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Egress } from "../relay/Egress.js"
import { EventBus } from "../core/EventBus.js"
import { Pool } from "../pool/Pool.js"
import { type PoolClosed, PeerAway } from "../pool/IdleConnections.js"
import * as Signal from "../wire/Signal.js"
import { type Delivered, SignalBus, type SignalBusClosed } from "../signal/SignalBus.js"
import type { Connection } from "../transport/Transport.js"

/** The session ended, or lost its control connection, before the visitor had a connection; another one may serve it. */
export type SessionOver = PoolClosed | SignalBusClosed | PeerAway

export class Session extends Context.Tag("nodepass/Session")<
  Session,
  {
    /**
     * A pool connection on its way to the target, launched for this visitor. The caller's scope owns it.
     *
     * When the other side does not take the launch the connection is reset, and `refused` called, at any time after.
     */
    readonly open: (
      visit: Signal.Visit,
      refused: Effect.Effect<void>
    ) => Effect.Effect<Connection, SessionOver, Scope.Scope>
    /** Serves the peer's signals until the session is over. */
    readonly run: Effect.Effect<never, SignalBusClosed>
    /** Has every idle pool connection replaced, e.g. after the network changed. */
    readonly flush: Effect.Effect<void, SignalBusClosed>
    /** Resets everybody who is being served: the other side is given up for dead. */
    readonly abandon: Effect.Effect<void>
    /** Whether visitors come to this side or to the other. */
    readonly visitors: "local" | "remote"
    readonly bus: SignalBus["Type"]
    readonly pool: Pool["Type"]
  }
>() {}

export interface Options {
  /** Whether visitors come to this side or to the other. */
  readonly visitors: "local" | "remote"
  /** Whether it is to remember who is being served, for `abandon`. Defaults to not. */
  readonly remembers?: boolean | undefined
}

export const layer = ({
  remembers = false,
  visitors
}: Options): Layer.Layer<Session, never, Egress | EventBus | Pool | SignalBus> =>
  Layer.effect(
    Session,
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const egress = yield* Egress
      const events = yield* EventBus
      const pool = yield* Pool

      const served = new Set<Connection>()
      const remember = (connection: Connection) =>
        remembers
          ? Effect.acquireRelease(
              Effect.sync(() => served.add(connection)),
              () => Effect.sync(() => served.delete(connection))
            )
          : Effect.void
      const take = (id: Signal.ConnectionId) => Effect.tap(pool.take(id), remember)

      const launched = (direction: "sent" | "received", { protocol, visitor }: Signal.Visit) =>
        events.publish(() => ({ _tag: "Launched", direction, protocol, visitor }))
      const receive = (signal: Delivered): Effect.Effect<void> => {
        switch (signal._tag) {
          case "Launch":
            return visitors === "remote"
              ? Effect.zipRight(launched("received", signal), egress.launch(signal, remembers ? take : pool.take))
              : Effect.logWarning("a launch was passed over: in this tunnel visitors come to this side only")
          case "Demand":
            return pool.warm(signal.count)
          case "Flush":
            return pool.trim(0)
          case "Keep":
            return pool.trim(signal.count)
          case "Terms":
            return Effect.logDebug("terms are settled in the handshake; these were passed over")
        }
      }

      return Session.of({
        open: (visit, refused) =>
          Effect.flatMap(pool.takeAny, ({ connection, id }) => {
            const { entry, protocol, visitor } = visit
            const launch = Effect.suspend((): Effect.Effect<void, SessionOver, Scope.Scope> =>
              bus.isAttached()
                ? bus.launch(
                    Signal.makeLaunch({ protocol, id, visitor, entry }),
                    Effect.zipRight(connection.reset, refused)
                  )
                : new PeerAway()
            )
            return Effect.tapError(launch, () => connection.reset).pipe(
              Effect.zipRight(launched("sent", visit)),
              Effect.zipRight(remember(connection)),
              Effect.as(connection)
            )
          }),
        run: bus.run(receive),
        flush: visitors === "local" ? pool.trim(0) : bus.send(new Signal.Flush()),
        abandon: Effect.suspend(() => Effect.forEach(served, ({ reset }) => reset, { discard: true })),
        visitors,
        bus,
        pool
      })
    })
  )
