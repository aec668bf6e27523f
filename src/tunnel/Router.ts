/**
 * Routes visitors to the other side, through a session that has a control connection. Visitors wait while none has.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import { rootSpan } from "../core/RootSpan.js"
import type { StreamHandle } from "../stream/StreamHandle.js"
import { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import type { Visit } from "../wire/Signal.js"
import type { Session } from "./Session.js"
import { withoutStack } from "../core/WithoutStack.js"

/** A visitor got no connection in time. `Away`: no session has a control connection. `Busy`: the pool has no idle connection. */
export class RouteTimeout extends withoutStack(
  Schema.TaggedError<RouteTimeout>()("RouteTimeout", {
    reason: Schema.Literal("Away", "Busy"),
    waited: Schema.DurationFromSelf
  })
) {
  override get message(): string {
    const why = this.reason === "Away" ? "the other side is away" : "the pool has no idle connection"
    return `no connection to the other side within ${Duration.format(this.waited)}: ${why}`
  }
}

export class Router extends Context.Tag("nodepass/Router")<
  Router,
  {
    /**
     * Opens a connection to a target for this visitor, through a session whose visitors connect to this side.
     *
     * Waits up to `poolGetTimeout`, then fails with `RouteTimeout`. The caller's scope owns the connection. When the peer
     * does not take the launch, the connection is reset later.
     */
    readonly open: (visit: Visit) => Effect.Effect<Connection, RouteTimeout, Scope.Scope>
    /**
     * A stream to a target for this visitor, which is opened once it is joined, without a fiber; `undefined` when `open` has to
     * be used.
     */
    readonly openNow: (visit: Visit) => StreamHandle | undefined
    /** Whether no session can serve visitors of this side now. */
    readonly isAway: () => boolean
    /** Adds the session until the scope closes. Visitors go through it while it has a control connection. */
    readonly use: (session: Session["Type"], options?: UseOptions) => Effect.Effect<void, never, Scope.Scope>
    /** The sessions in use, the preferred first. */
    readonly sessions: Effect.Effect<ReadonlyArray<Session["Type"]>>
    /** Completes once a session has a control connection. */
    readonly ready: Effect.Effect<void>
    /** Calls the listener when a session gets or loses a control connection, until the returned function is called. */
    readonly watch: (listener: () => void) => () => void
  }
>() {}

export interface UseOptions {
  /** The lowest is preferred. Defaults to `0`. */
  readonly rank?: number | undefined
}

export interface Options {
  /** Whether visitors go through the preferred session, or through all of them in turn. Defaults to `preferred`. */
  readonly choose?: "preferred" | "turns" | undefined
}

export const layer = (options?: Options): Layer.Layer<Router, never, Deadlines | Settings> =>
  Layer.effect(
    Router,
    Effect.gen(function* () {
      const deadlines = yield* Deadlines
      const { poolGetTimeout } = yield* Settings
      /** A session has a control connection. */
      const ready = yield* Effect.makeLatch(false)
      /** A session has one and serves visitors of this side. */
      const routable = yield* Effect.makeLatch(false)
      /** In order of rank. */
      let routes: ReadonlyArray<Route> = []
      let turn = 0
      const listeners = new Set<() => void>()

      const choose = (): Session["Type"] | undefined => {
        const candidates = routes.filter(isRoutable)
        const at = options?.choose === "turns" ? turn++ % Math.max(candidates.length, 1) : 0
        return candidates[at]?.session
      }
      const updateLatches = () => {
        for (const [latch, opens] of [[ready, isAttached] as const, [routable, isRoutable] as const]) {
          if (routes.some(opens)) latch.unsafeOpen()
          else latch.unsafeClose()
        }
        for (const listener of listeners) listener()
      }

      const attempt = (
        visit: Visit,
        session: Session["Type"] | undefined
      ): Effect.Effect<Connection, never, Scope.Scope> =>
        session === undefined
          ? Effect.zipRight(routable.await, attemptNext(visit))
          : Effect.catchAll(session.open(visit), () => attemptNext(visit))
      const attemptNext = (visit: Visit) => Effect.suspend(() => attempt(visit, choose()))
      const onTimeout = () =>
        new RouteTimeout({ reason: choose() === undefined ? "Away" : "Busy", waited: poolGetTimeout })

      return Router.of({
        open: (visit) =>
          rootSpan("Router.open", () => ({ protocol: visit.protocol, visitor: String(visit.visitor) }))(
            Effect.suspend(() => {
              const session = choose()
              // A stream needs no wait, and so neither the fiber nor the deadline of one.
              return Effect.flatMap(session?.openStream(visit) ?? Effect.succeedNone, (opened) =>
                Option.isSome(opened)
                  ? Effect.succeed(opened.value)
                  : deadlines.limit(attempt(visit, session), { duration: poolGetTimeout, onTimeout })
              )
            })
          ),
        openNow: (visit) => choose()?.openStreamNow(visit),
        isAway: () => !routes.some(isRoutable),
        use: (session, { rank = 0 } = {}) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => {
                routes = [...routes, { session, rank }].toSorted((left, right) => left.rank - right.rank)
                updateLatches()
                return session.watch(updateLatches)
              }),
              (unwatch) =>
                Effect.sync(() => {
                  unwatch()
                  routes = routes.filter((route) => route.session !== session)
                  updateLatches()
                })
            )
          ),
        sessions: Effect.sync(() => routes.map(({ session }) => session)),
        ready: ready.await,
        watch: (listener) => {
          listeners.add(listener)
          return () => void listeners.delete(listener)
        }
      })
    })
  )

// internal

interface Route {
  readonly session: Session["Type"]
  readonly rank: number
}

const isAttached = ({ session }: Route): boolean => session.isAttached()

/** Several servers need not agree on the side that visitors connect to. */
const isRoutable = ({ session }: Route): boolean => session.visitors === "local" && session.isAttached()
