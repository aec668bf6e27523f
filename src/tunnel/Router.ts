/**
 * The way to the other side, by whichever session has a control connection now. Visitors who come while none has wait here.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import type { Session } from "./Session.js"
import { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import type { Connection } from "../transport/Transport.js"

/** No connection to the other side came in time: it is away, or its pool does not keep up. */
export class RouteTimeout extends Schema.TaggedError<RouteTimeout>()("RouteTimeout", {
  reason: Schema.Literal("Away", "Busy"),
  waited: Schema.DurationFromSelf
}) {
  override get message(): string {
    const why = this.reason === "Away" ? "the other side is away" : "the pool does not keep up"
    return `no connection to the other side within ${Duration.format(this.waited)}: ${why}`
  }
}

export class Router extends Context.Tag("nodepass/Router")<
  Router,
  {
    /**
     * A connection to the target for this visitor, by a session that has a control connection, or the next to have one,
     * of those in which visitors come to this side.
     *
     * Waits up to `poolGetTimeout`, then fails with `RouteTimeout`. The caller's scope owns the connection. When the other
     * side does not take the launch, which shows later, the fiber that called this is interrupted.
     */
    readonly open: (visit: Visit) => Effect.Effect<Connection, RouteTimeout, Scope.Scope>
    /** The session stands until the scope closes; visitors go by it while it has a control connection. */
    readonly use: (session: Session["Type"], options?: UseOptions) => Effect.Effect<void, never, Scope.Scope>
    /** The sessions that stand, the preferred first. */
    readonly sessions: Effect.Effect<ReadonlyArray<Session["Type"]>>
    /** Completes once a session has a control connection. */
    readonly ready: Effect.Effect<void>
  }
>() {}

export interface UseOptions {
  /** The lowest is preferred. Defaults to `0`. */
  readonly rank?: number | undefined
}

export interface Options {
  /** Whether visitors go by the preferred of several sessions, or by each in turn. Defaults to the former. */
  readonly choose?: "preferred" | "turns" | undefined
}

export const layer = (options?: Options): Layer.Layer<Router, never, Deadlines | Settings> =>
  Layer.effect(
    Router,
    Effect.gen(function* () {
      const deadlines = yield* Deadlines
      const { poolGetTimeout } = yield* Settings
      const ready = yield* Effect.makeLatch(false)
      const leads = yield* Effect.makeLatch(false)
      /** In order of rank. */
      let standing: ReadonlyArray<Standing> = []
      let turn = 0

      const choose = (): Session["Type"] | undefined => {
        const attached = standing.filter(isWay)
        const at = options?.choose === "turns" ? turn++ % Math.max(attached.length, 1) : 0
        return attached[at]?.session
      }
      const settle = () => {
        for (const [latch, opens] of [[ready, isAttached] as const, [leads, isWay] as const]) {
          if (standing.some(opens)) latch.unsafeOpen()
          else latch.unsafeClose()
        }
      }

      const attempt = (visit: Visit, refused: Effect.Effect<void>): Effect.Effect<Connection, never, Scope.Scope> =>
        Effect.suspend(() => {
          const session = choose()
          return session === undefined
            ? Effect.zipRight(leads.await, attempt(visit, refused))
            : Effect.catchAll(session.open(visit, refused), () => attempt(visit, refused))
        })

      return Router.of({
        open: (visit) =>
          Effect.withFiberRuntime((visitor) =>
            deadlines.limit(
              attempt(
                visit,
                Effect.sync(() => visitor.unsafeInterruptAsFork(visitor.id()))
              ),
              {
                duration: poolGetTimeout,
                onTimeout: () =>
                  new RouteTimeout({ reason: choose() === undefined ? "Away" : "Busy", waited: poolGetTimeout })
              }
            )
          ),
        use: (session, { rank = 0 } = {}) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => {
                standing = [...standing, { session, rank }].toSorted((left, right) => left.rank - right.rank)
                settle()
                return session.bus.watch((attached) => {
                  settle()
                  // There may be another one that is not away.
                  if (!attached) session.pool.rejectWaiting()
                })
              }),
              (unwatch) =>
                Effect.sync(() => {
                  unwatch()
                  standing = standing.filter((one) => one.session !== session)
                  settle()
                })
            )
          ),
        sessions: Effect.sync(() => standing.map(({ session }) => session)),
        ready: ready.await
      })
    })
  )

// internal

interface Standing {
  readonly session: Session["Type"]
  readonly rank: number
}

const isAttached = ({ session }: Standing): boolean => session.bus.isAttached()

/** Several servers need not agree on which side visitors come to. */
const isWay = ({ session }: Standing): boolean => session.visitors === "local" && session.bus.isAttached()
