/**
 * The way to the other side, whichever session stands now. Visitors who come between two sessions wait here.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Deadlines } from "./Deadlines.js"
import type { Session } from "./Session.js"
import { Settings } from "./Settings.js"
import type { Visit } from "./Signal.js"
import type { Connection } from "./Transport.js"

/** No connection to the other side came in time: it is away, or its pool does not keep up. */
export class LinkTimeout extends Schema.TaggedError<LinkTimeout>()("LinkTimeout", {
  reason: Schema.Literal("Away", "Busy"),
  waited: Schema.DurationFromSelf
}) {
  override get message(): string {
    const why = this.reason === "Away" ? "the other side is away" : "the pool does not keep up"
    return `no connection to the other side within ${Duration.format(this.waited)}: ${why}`
  }
}

export class Link extends Context.Tag("nodepass/Link")<
  Link,
  {
    /**
     * A connection to the target for this visitor, by the session that stands or the next one.
     *
     * Waits up to `poolGetTimeout`, then fails with `LinkTimeout`. The caller's scope owns the connection. When the other
     * side does not take the launch, which shows later, the fiber that called this is interrupted.
     */
    readonly open: (visit: Visit) => Effect.Effect<Connection, LinkTimeout, Scope.Scope>
    /** Makes this the session that stands, until the scope closes or another takes its place. */
    readonly use: (session: Session["Type"]) => Effect.Effect<void, never, Scope.Scope>
    readonly session: Effect.Effect<Option.Option<Session["Type"]>>
    /** Completes once a session stands. */
    readonly ready: Effect.Effect<void>
  }
>() {}

export const layer: Layer.Layer<Link, never, Deadlines | Settings> = Layer.effect(
  Link,
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const { poolGetTimeout } = yield* Settings
    const ready = yield* Effect.makeLatch(false)
    let current: Session["Type"] | undefined

    const leave = (session: Session["Type"]) =>
      Effect.sync(() => {
        if (current !== session) return
        current = undefined
        ready.unsafeClose()
      })

    const attempt = (visit: Visit, refused: Effect.Effect<void>): Effect.Effect<Connection, never, Scope.Scope> =>
      Effect.suspend(() => {
        const session = current
        if (session === undefined) return Effect.zipRight(ready.await, attempt(visit, refused))
        return Effect.catchAll(session.open(visit, refused), () =>
          Effect.zipRight(leave(session), attempt(visit, refused))
        )
      })

    return Link.of({
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
                new LinkTimeout({ reason: current === undefined ? "Away" : "Busy", waited: poolGetTimeout })
            }
          )
        ),
      use: (session) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            current = session
            ready.unsafeOpen()
          }),
          () => leave(session)
        ),
      session: Effect.sync(() => Option.fromNullable(current)),
      ready: ready.await
    })
  })
)
