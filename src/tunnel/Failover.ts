/**
 * Chooses the server that a client uses: the first that can be reached, and an earlier one again once it has returned.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { Settings } from "../transport/Settings.js"

/**
 * `connected`: it has a control connection. `lost`: the control connection was lost, or there was none yet.
 * `failed`: the server cannot be reached, or was silent for too long.
 */
export type ServerStatus = "connected" | "lost" | "failed"

export interface Options<R> {
  /** The servers, the preferred first. */
  readonly servers: ReadonlyArray<Server<R>>
}

export interface Server<R> {
  /** For the log. */
  readonly name: string
  /** Uses the server until the scope closes, and reports its status. */
  readonly run: (report: (status: ServerStatus) => void) => Effect.Effect<never, never, R | Scope.Scope>
}

/**
 * Runs the first server that can be reached, for ever.
 *
 * The next one starts when those before it have failed, or have been without a control connection for a second; they
 * keep trying. Once an earlier server has been connected for the service cooldown, the later ones are stopped, which
 * interrupts none of their visitors.
 */
export const run = <R>({
  servers
}: Options<R>): Effect.Effect<never, never, Exclude<R, Scope.Scope> | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const { serviceCooldown } = yield* Settings
    const cooldownMillis = Duration.toMillis(serviceCooldown)
    const parent = yield* Effect.scope
    const clock = yield* Effect.clock
    // Steady, unlike the time of day.
    const now = () => Number(clock.unsafeCurrentTimeNanos() / 1000n) / 1000
    const changed = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
    const running = new Map<Server<R>, Running>()

    const start = (server: Server<R>, rank: number) =>
      Effect.gen(function* () {
        const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
        const state: Running = { scope, status: "lost", since: now() }
        running.set(server, state)
        const report = (status: ServerStatus) => {
          state.status = status
          state.since = now()
          changed.unsafeOffer(undefined)
        }
        if (rank > 0) yield* Effect.annotateLogs(Effect.logInfo("trying the next server"), { server: server.name })
        // Forked last: the scope closes what the server opens in it before it interrupts the fiber, so that `Bye` is sent.
        yield* Effect.forkIn(Scope.extend(server.run(report), scope), scope)
      })
    const stop = (server: Server<R>, { scope }: Running) => {
      running.delete(server)
      return Effect.zipRight(
        Effect.annotateLogs(Effect.logInfo("an earlier server is back; leaving this one"), { server: server.name }),
        Scope.close(scope, Exit.void)
      )
    }

    /** Starts and stops servers. Returns the milliseconds after which to decide again. */
    const decide = Effect.gen(function* () {
      let others: "start" | "keep" | "stop" = "start"
      let wait = Infinity
      for (const [rank, server] of servers.entries()) {
        if (others === "start" && !running.has(server)) yield* start(server, rank)
        const state = running.get(server)
        if (state === undefined) continue
        if (others === "stop") {
          yield* stop(server, state)
          continue
        }
        if (state.status === "failed") continue
        const isConnected = state.status === "connected"
        const left = state.since + (isConnected ? cooldownMillis : patienceMillis) - now()
        if (left > 0) {
          others = "keep"
          // The clock counts whole units: a shorter wait might not move it.
          wait = Math.min(wait, Math.max(1, left))
        } else if (isConnected) others = "stop"
      }
      return wait
    })

    return yield* Effect.forever(
      Effect.flatMap(decide, (wait) =>
        Number.isFinite(wait) ? Effect.timeoutOption(Queue.take(changed), wait) : Queue.take(changed)
      )
    )
  })

// internal

/** A server that has been without a control connection for this long is considered away. */
const patienceMillis = 1000

interface Running {
  readonly scope: Scope.CloseableScope
  status: ServerStatus
  since: number
}
