/**
 * One tunnel that the master starts, stops, and restarts after a failure.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Backoff from "../core/Backoff.js"
import * as ChildFiber from "../core/ChildFiber.js"
import { DefectWatch } from "./DefectWatch.js"
import type { Traffic } from "./Instance.js"
import type { InstanceLog } from "./InstanceLog.js"
import * as TunnelState from "./TunnelState.js"
import * as Tunnel from "../tunnel/Tunnel.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"
import type { UrlError } from "../url/UrlError.js"

/** What every tunnel needs of its host. */
export type Environment = Tunnel.Environment

/** `start`, `stop`, `restart` and `reset` run one after the other. */
export interface ManagedTunnel {
  /** Returns `false` when the tunnel was running. Completes when it runs, when its first attempt failed, or after 10 s. */
  readonly start: Effect.Effect<boolean>
  /** Returns `false` when the tunnel was stopped. Visitors may finish within the shutdown timeout. */
  readonly stop: Effect.Effect<boolean>
  readonly restart: Effect.Effect<void>
  /** It will be started soon: until then, it is stopped because it is starting. */
  readonly announce: () => void
  /** Sets the traffic to zero. */
  readonly reset: Effect.Effect<void>
  readonly state: () => TunnelState.State
  /** Reads the statistics of the tunnel. */
  readonly refresh: Effect.Effect<TunnelState.State>
}

export interface Options {
  /** The id of the instance. */
  readonly id: string
  /** Called for each attempt to start. An invalid URL fails the attempt. */
  readonly config: () => Either.Either<TunnelConfig, UrlError>
  /** Called when the tunnel failed: whether it restarts. */
  readonly shouldRestart: () => boolean
  readonly log: InstanceLog
  /** Bytes of earlier runs. */
  readonly traffic: Traffic
  /** Called after each change of the status, and after a reset of the traffic. */
  readonly onChange: () => void
}

/** The tunnel, stopped. The end of the scope stops it. */
export const make = (options: Options): Effect.Effect<ManagedTunnel, never, Environment | Scope.Scope> =>
  Effect.gen(function* () {
    const environment = yield* Effect.context<Environment>()
    const scope = yield* Effect.scope
    const lock = yield* Effect.makeSemaphore(1)
    const state = TunnelState.make(options)
    let fiber: Fiber.RuntimeFiber<void> | undefined

    const stopFiber = Effect.suspend(() => {
      const running = fiber
      fiber = undefined
      return running === undefined ? Effect.void : Fiber.interrupt(running)
    })
    const startFiber = Effect.gen(function* () {
      state.beginStart()
      const firstAttempt = yield* Deferred.make<void>()
      const level = Either.match(options.config(), { onLeft: () => "info" as const, onRight: ({ log }) => log })
      fiber = yield* supervise(options, state, firstAttempt).pipe(
        options.log.capture(level),
        // Replaces the caller's context: the tunnel is not part of the span, or the API request, that starts it.
        Effect.mapInputContext((_: Context.Context<never>) => environment),
        Effect.interruptible,
        Effect.forkIn(scope)
      )
      // Interrupting the caller ends only the waiting; the tunnel runs on.
      yield* Effect.interruptible(Effect.timeoutOption(Deferred.await(firstAttempt), startTimeout))
    })
    const operation = <A>(name: string, self: Effect.Effect<A>) =>
      lock
        .withPermits(1)(Effect.uninterruptible(self))
        .pipe(Effect.withSpan(`ManagedTunnel.${name}`, { attributes: { id: options.id } }))

    return {
      start: operation(
        "start",
        Effect.suspend(() =>
          state.read().status === "running"
            ? Effect.succeed(false)
            : Effect.zipRight(stopFiber, Effect.as(startFiber, true))
        )
      ),
      stop: operation(
        "stop",
        Effect.suspend(() => {
          const wasActive = state.read().status !== "stopped"
          return Effect.map(stopFiber, () => {
            state.setStatus("stopped")
            return wasActive
          })
        })
      ),
      announce: state.beginStart,
      restart: operation("restart", Effect.zipRight(stopFiber, startFiber)),
      reset: operation("reset", state.resetTraffic),
      state: state.read,
      refresh: Effect.map(state.refresh, state.read)
    }
  })

// internal

/** Longest delay before a restart. */
const maxDelay = Duration.seconds(30)
/** A tunnel that ran longer than this restarts at once. */
const healthyMillis = 10_000
/** Time between two changes that are published, so that a client that reconnects all the time causes no flood of events. */
const minInterval = Duration.millis(250)
/** How long a start waits for its first attempt. */
const startTimeout = Duration.seconds(10)

/** Runs the tunnel until it is interrupted or failed for good. Completes `firstAttempt` after the first attempt. */
const supervise = (
  options: Options,
  state: TunnelState.TunnelState,
  firstAttempt: Deferred.Deferred<void>
): Effect.Effect<void, never, Environment> =>
  Effect.gen(function* () {
    const onAttempt = Deferred.succeed(firstAttempt, undefined)
    const delays = yield* Schedule.driver(Backoff.schedule(maxDelay))
    while (true) {
      const start = yield* Clock.currentTimeMillis
      const exit = yield* ChildFiber.run(Effect.exit(run(options.config(), state, onAttempt)))
      if (Exit.isSuccess(exit) || Cause.isInterrupted(exit.cause)) return yield* Effect.interrupt
      const reason = Option.getOrElse(Cause.failureOption(exit.cause), () => reasonOf(exit.cause))
      const restarts = options.shouldRestart()
      state.setStatus("error", reason)
      yield* Effect.logError(`${reason}; ${restarts ? "restarting after a delay" : "not restarting"}`)
      yield* onAttempt
      if (!restarts) return
      const duration = (yield* Clock.currentTimeMillis) - start
      yield* Effect.ignore(delays.next({ healthy: duration > healthyMillis, worked: false, refused: false }))
      if (!options.shouldRestart()) return
    }
  })

/** One run of the tunnel. Fails with the reason when it cannot start, or when it failed. */
const run = (
  config: Either.Either<TunnelConfig, UrlError>,
  state: TunnelState.TunnelState,
  onStarted: Effect.Effect<unknown>
): Effect.Effect<never, string, Environment> =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) =>
      Effect.gen(function* () {
        const failed = yield* Deferred.make<never, string>()
        const tunnel = yield* build(config, scope, failed)
        yield* state.startRun(tunnel)
        yield* Scope.extend(follow(tunnel, state), scope)
        state.setStatus("running")
        yield* onStarted
        return yield* Deferred.await(failed)
      }),
    // In this order: visitors that are allowed to finish transfer bytes until the scope is closed.
    (scope, exit) => Effect.zipRight(Scope.close(scope, exit), state.endRun)
  )

/** Reads the statistics, and calls `onChange`, whenever the tunnel begins or ceases to serve: not only at each report. */
const follow = (tunnel: Tunnel.Tunnel["Type"], state: TunnelState.TunnelState) =>
  Effect.gen(function* () {
    const changed = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
    yield* Effect.acquireRelease(
      Effect.sync(() => tunnel.watch(() => void changed.unsafeOffer(undefined))),
      (unwatch) => Effect.sync(unwatch)
    )
    const update = Effect.zipRight(Queue.take(changed), state.noteServing)
    yield* Effect.forkScoped(Effect.forever(Effect.zipLeft(update, Effect.sleep(minInterval))))
  })

/** Builds the tunnel in the scope. Fails `failed` when one of its background fibers dies. */
const build = (
  config: Either.Either<TunnelConfig, UrlError>,
  scope: Scope.Scope,
  failed: Deferred.Deferred<never, string>
): Effect.Effect<Tunnel.Tunnel["Type"], string, Environment> =>
  Effect.gen(function* () {
    const watch = new DefectWatch((cause) => Deferred.unsafeDone(failed, Exit.fail(reasonOf(cause))))
    const services = yield* Effect.flatMap(config, (config) => Layer.buildWithScope(Tunnel.layer(config), scope)).pipe(
      Effect.supervised(watch),
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause) ? Effect.failCause(Cause.empty) : Effect.fail(reasonOf(cause))
      )
    )
    watch.building = false
    return Context.get(services, Tunnel.Tunnel)
  })

const reasonOf = (cause: Cause.Cause<unknown>): string =>
  Cause.prettyErrors(cause)
    .map(({ message }) => message)
    .join("; ")
