/**
 * One tunnel under the master's eyes: started, stopped, and begun again after it broke.
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
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Supervisor from "effect/Supervisor"
import * as Backoff from "../core/Backoff.js"
import type { Checkpoint } from "../tunnel/Checkpoint.js"
import * as ChildFiber from "../core/ChildFiber.js"
import { noTraffic, type Status, type Traffic } from "./Instance.js"
import type { InstanceLog } from "./InstanceLog.js"
import * as Tunnel from "../tunnel/Tunnel.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"
import type { UrlError } from "../url/UrlError.js"

/** What every tunnel needs of its host. */
export type Environment = Tunnel.Environment

/** How it is doing; the figures are those of the last `look`. */
export interface State {
  readonly status: Status
  /** Why the status is `error`, else empty. */
  readonly error: string
  /** `None` while it does not run. */
  readonly checkpoint: Option.Option<Checkpoint>
  /** Bytes over all runs. */
  readonly traffic: Traffic
}

/** Each call waits for the one before it. */
export interface ManagedTunnel {
  /** Says `false` when it was running already. Completes once it runs, or the first attempt has failed. */
  readonly start: Effect.Effect<boolean>
  /** Says `false` when it was stopped already. Visitors may finish within the shutdown timeout. */
  readonly stop: Effect.Effect<boolean>
  readonly restart: Effect.Effect<void>
  /** Zeroes the traffic. */
  readonly reset: Effect.Effect<void>
  readonly state: () => State
  /** Reads the figures anew. */
  readonly look: Effect.Effect<State>
}

export interface Options {
  /** Asked at each attempt, which fails with the error's message. */
  readonly config: () => Either.Either<TunnelConfig, UrlError>
  /** Asked when it has broken: whether it is to begin again. */
  readonly restarts: () => boolean
  readonly log: InstanceLog
  /** Bytes of earlier lives. */
  readonly traffic: Traffic
  /** Told after each change of the status. */
  readonly changed: () => void
}

/** Nothing runs yet; the end of the scope stops it. */
export const make = (options: Options): Effect.Effect<ManagedTunnel, never, Environment | Scope.Scope> =>
  Effect.gen(function* () {
    const environment = yield* Effect.context<Environment>()
    const scope = yield* Effect.scope
    const lock = yield* Effect.makeSemaphore(1)
    let fiber: Fiber.RuntimeFiber<void> | undefined
    let tunnel: Tunnel.Tunnel["Type"] | undefined
    let status: Status = "stopped"
    let error = ""
    let checkpoint: Option.Option<Checkpoint> = Option.none()
    /** Of earlier runs, and what this run had when it was last reset. */
    let before = options.traffic
    let origin = noTraffic

    const traffic = () => Option.match(checkpoint, { onNone: () => before, onSome: (now) => sum(before, now, origin) })
    const state = (): State => ({ status, error, checkpoint, traffic: traffic() })
    const become = (next: Status, reason: string) => {
      if (next === status && reason === error) return
      status = next
      error = reason
      options.changed()
    }
    const read = Effect.suspend(() => {
      const running = tunnel
      if (running === undefined) return Effect.void
      return Effect.map(running.checkpoint, (now) => {
        if (tunnel === running) checkpoint = Option.some(now)
      })
    })

    /** One run: fails with the reason when it cannot begin or breaks; `began` hears of either. */
    const run = (began: Effect.Effect<unknown>) =>
      Effect.acquireUseRelease(
        Scope.make(),
        (own) =>
          Effect.gen(function* () {
            const broken = yield* Deferred.make<never, string>()
            const watch = new Watch((cause) => Deferred.unsafeDone(broken, Exit.fail(reasonOf(cause))))
            const services = yield* Effect.flatMap(options.config(), (config) =>
              Layer.buildWithScope(Tunnel.layer(config), own)
            ).pipe(
              Effect.supervised(watch),
              Effect.catchAllCause((cause) =>
                Cause.isInterruptedOnly(cause) ? Effect.failCause(Cause.empty) : Effect.fail(reasonOf(cause))
              )
            )
            watch.building = false
            tunnel = Context.get(services, Tunnel.Tunnel)
            origin = noTraffic
            yield* read
            become("running", "")
            yield* began
            return yield* Deferred.await(broken)
          }),
        (own, exit) =>
          Effect.gen(function* () {
            yield* Scope.close(own, exit)
            // Visitors who were let finish have counted until now.
            yield* read
            before = traffic()
            tunnel = undefined
            checkpoint = Option.none()
          })
      )

    const supervise = (first: Deferred.Deferred<void>) =>
      Effect.gen(function* () {
        const began = Deferred.succeed(first, undefined)
        const waits = yield* Schedule.driver(Backoff.schedule(longestWait))
        while (true) {
          const start = yield* Clock.currentTimeMillis
          // In a fiber of its own: see there.
          const exit = yield* ChildFiber.run(Effect.exit(run(began)))
          if (Exit.isSuccess(exit) || Cause.isInterrupted(exit.cause)) return yield* Effect.interrupt
          const reason = Option.getOrElse(Cause.failureOption(exit.cause), () => reasonOf(exit.cause))
          const again = options.restarts()
          become("error", reason)
          yield* Effect.logError(`${reason}${again ? "; it will be tried again" : ""}`)
          yield* began
          if (!again) return
          const lasted = (yield* Clock.currentTimeMillis) - start
          yield* Effect.ignore(waits.next({ healthy: lasted > healthyMillis, worked: false, refused: false }))
          if (!options.restarts()) return
        }
      })

    const halt = Effect.suspend(() => {
      const running = fiber
      fiber = undefined
      return running === undefined ? Effect.void : Fiber.interrupt(running)
    })
    const begin = Effect.gen(function* () {
      const first = yield* Deferred.make<void>()
      fiber = yield* supervise(first).pipe(
        options.log.hear(Either.match(options.config(), { onLeft: () => "info" as const, onRight: ({ log }) => log })),
        Effect.provide(environment),
        Effect.interruptible,
        Effect.forkIn(scope)
      )
      // The caller may leave; the tunnel goes on.
      yield* Effect.interruptible(Effect.timeoutOption(Deferred.await(first), patience))
    })
    const serially = <A>(self: Effect.Effect<A>) => lock.withPermits(1)(Effect.uninterruptible(self))

    return {
      start: serially(
        Effect.suspend(() =>
          status === "running" ? Effect.succeed(false) : Effect.zipRight(halt, Effect.as(begin, true))
        )
      ),
      stop: serially(
        Effect.suspend(() => {
          const was = status !== "stopped"
          return Effect.map(halt, () => {
            become("stopped", "")
            return was
          })
        })
      ),
      restart: serially(Effect.zipRight(halt, begin)),
      reset: serially(
        Effect.map(read, () => {
          before = noTraffic
          origin = Option.match(checkpoint, { onNone: () => noTraffic, onSome: trafficOf })
          options.changed()
        })
      ),
      state,
      look: Effect.map(read, state)
    }
  })

// internal

const longestWait = Duration.seconds(30)
const healthyMillis = 10_000
/** How long a start may keep its caller waiting. */
const patience = Duration.seconds(10)

/** Hears when a fiber that belongs to the tunnel itself, not to a visitor, dies: nobody else would. */
class Watch extends Supervisor.AbstractSupervisor<void> {
  building = true
  private readonly own = new Set<Fiber.RuntimeFiber<unknown, unknown>>()
  private readonly died: (cause: Cause.Cause<unknown>) => void
  override readonly value = Effect.void

  constructor(died: (cause: Cause.Cause<unknown>) => void) {
    super()
    this.died = died
  }

  override onStart<A, E, R>(
    _context: Context.Context<R>,
    _effect: Effect.Effect<A, E, R>,
    _parent: Option.Option<Fiber.RuntimeFiber<unknown, unknown>>,
    fiber: Fiber.RuntimeFiber<A, E>
  ): void {
    if (this.building) this.own.add(fiber)
  }

  override onEnd<A, E>(exit: Exit.Exit<A, E>, fiber: Fiber.RuntimeFiber<A, E>): void {
    if (this.own.delete(fiber) && Exit.isFailure(exit) && Cause.isDie(exit.cause)) this.died(exit.cause)
  }
}

const reasonOf = (cause: Cause.Cause<unknown>): string =>
  Cause.prettyErrors(cause)
    .map(({ message }) => message)
    .join("; ")

const trafficOf = ({ tcpRx, tcpTx, udpRx, udpTx }: Checkpoint): Traffic => ({
  tcprx: tcpRx,
  tcptx: tcpTx,
  udprx: udpRx,
  udptx: udpTx
})

const sum = (before: Traffic, now: Checkpoint, origin: Traffic): Traffic => ({
  tcprx: before.tcprx + now.tcpRx - origin.tcprx,
  tcptx: before.tcptx + now.tcpTx - origin.tcptx,
  udprx: before.udprx + now.udpRx - origin.udprx,
  udptx: before.udptx + now.udpTx - origin.udptx
})
