/**
 * One agreed control connection, and all that stands on it: the signal bus, the pool, the launches that come in.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Egress } from "./Egress.js"
import { Pool } from "./Pool.js"
import type { ShelfClosed } from "./Shelf.js"
import * as Signal from "./Signal.js"
import { type Delivered, SignalBus, type SignalBusClosed } from "./SignalBus.js"
import type { Connection } from "./Transport.js"

/** The session ended before the visitor had a connection; the next one may serve it. */
export type SessionOver = ShelfClosed | SignalBusClosed

export class Session extends Context.Tag("nodepass/Session")<
  Session,
  {
    /** A pool connection on its way to the target, launched for this visitor. The caller's scope owns it. */
    readonly open: (visit: Signal.Visit) => Effect.Effect<Connection, SessionOver, Scope.Scope>
    /** Serves the peer's signals until the session is over. */
    readonly run: Effect.Effect<never, SignalBusClosed>
    /** Has every idle pool connection replaced, e.g. after the network changed. */
    readonly flush: Effect.Effect<void, SignalBusClosed>
    readonly bus: SignalBus["Type"]
    readonly pool: Pool["Type"]
  }
>() {}

export interface Options {
  /** Whether visitors come to this side or to the other. */
  readonly visitors: "here" | "there"
}

export const layer = ({ visitors }: Options): Layer.Layer<Session, never, Egress | Pool | SignalBus> =>
  Layer.effect(
    Session,
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const egress = yield* Egress
      const pool = yield* Pool

      const receive = (signal: Delivered): Effect.Effect<void> => {
        switch (signal._tag) {
          case "Launch":
            return visitors === "there"
              ? egress.launch(signal, pool.take)
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
        open: ({ entry, protocol, visitor }) =>
          Effect.flatMap(pool.takeAny, ({ connection, id }) =>
            bus.send(Signal.makeLaunch({ protocol, id, visitor, entry })).pipe(
              Effect.tapError(() => connection.reset),
              Effect.as(connection)
            )
          ),
        run: bus.run(receive),
        flush: visitors === "here" ? pool.trim(0) : bus.send(new Signal.Flush()),
        bus,
        pool
      })
    })
  )
