/**
 * Which of a client's servers it goes through: the first that is there, and back to an earlier one that has returned.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { Settings } from "../transport/Settings.js"

/** What became of a server: it has a control connection, lost it, or could not be reached, or fell silent. */
export type Outcome = "stands" | "lost" | "failed"

export interface Options<R> {
  /** The servers, the preferred first. */
  readonly servers: ReadonlyArray<{
    readonly name: string
    /** Goes through it until the scope closes, and says what becomes of it. */
    readonly run: (tell: (outcome: Outcome) => void) => Effect.Effect<never, never, R | Scope.Scope>
  }>
}

/** A server that does not stand within this, or not again, is taken for away. */
const patience = 1000

interface Candidate {
  readonly scope: Scope.CloseableScope
  outcome: Outcome
  since: number
}

/**
 * Goes through the first server that is there, for ever.
 *
 * The next one is tried as soon as an attempt at those before it has failed, or the silence of one was found, or after a second
 * without a control connection; these are tried on meanwhile. Once an earlier one has stood for the service cooldown, those behind it are left: nobody
 * being served through them is interrupted.
 */
export const run = <R>({
  servers
}: Options<R>): Effect.Effect<never, never, Exclude<R, Scope.Scope> | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const { serviceCooldown } = yield* Settings
    const steady = Duration.toMillis(serviceCooldown)
    const parent = yield* Effect.scope
    const clock = yield* Effect.clock
    // Steady, unlike the time of day.
    const millis = () => Number(clock.unsafeCurrentTimeNanos() / 1000n) / 1000
    const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
    const running = new Map<number, Candidate>()

    const start = (rank: number, server: Options<R>["servers"][number]) =>
      Effect.gen(function* () {
        const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
        const candidate: Candidate = { scope, outcome: "lost", since: millis() }
        running.set(rank, candidate)
        const tell = (outcome: Outcome) => {
          candidate.outcome = outcome
          candidate.since = millis()
          wake.unsafeOffer(undefined)
        }
        if (rank > 0) yield* Effect.annotateLogs(Effect.logInfo("trying the next server"), { server: server.name })
        // What it opens in the scope is closed before its fiber ends, so that a farewell finds the way.
        yield* Effect.forkIn(Scope.extend(server.run(tell), scope), scope)
      })
    const stop = (rank: number, { scope }: Candidate, name: string) => {
      running.delete(rank)
      return Effect.zipRight(
        Effect.annotateLogs(Effect.logInfo("an earlier server is back: this one is left"), { server: name }),
        Scope.close(scope, Exit.void)
      )
    }

    /** Starts and stops what is to be, and says in how many milliseconds to look again. */
    const look = Effect.gen(function* () {
      let wanted: "run" | "keep" | "stop" = "run"
      let next = Infinity
      for (const [rank, server] of servers.entries()) {
        if (wanted === "run" && !running.has(rank)) yield* start(rank, server)
        const candidate = running.get(rank)
        if (candidate === undefined) continue
        if (wanted === "stop") {
          yield* stop(rank, candidate, server.name)
          continue
        }
        if (candidate.outcome === "failed") continue
        const stands = candidate.outcome === "stands"
        const left = candidate.since + (stands ? steady : patience) - millis()
        if (left > 0) {
          wanted = "keep"
          // Less than that and a clock of fractions may stand still.
          next = Math.min(next, Math.max(1, left))
        } else if (stands) wanted = "stop"
      }
      return next
    })

    return yield* Effect.forever(
      Effect.flatMap(look, (millis) =>
        Number.isFinite(millis) ? Effect.timeoutOption(Queue.take(wake), millis) : Queue.take(wake)
      )
    )
  })
