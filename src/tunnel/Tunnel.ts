/**
 * One side of a tunnel: what the command runs and what hosts embed. Closing its scope stops it gracefully.
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Address } from "../core/Address.js"
import * as Deadlines from "../core/Deadlines.js"
import * as EventBus from "../core/EventBus.js"
import * as Refusals from "../core/Refusals.js"
import type { TunnelEvent } from "../core/TunnelEvent.js"
import * as PoolFactory from "../pool/PoolFactory.js"
import * as PoolPolicy from "../pool/PoolPolicy.js"
import * as Capacity from "../relay/Capacity.js"
import * as DatagramRelay from "../relay/DatagramRelay.js"
import * as Egress from "../relay/Egress.js"
import * as Meter from "../relay/Meter.js"
import * as Relay from "../relay/Relay.js"
import * as RelayFactory from "../relay/RelayFactory.js"
import * as Slots from "../relay/Slots.js"
import * as Targets from "../relay/Targets.js"
import * as Throttle from "../relay/Throttle.js"
import * as SignalBusFactory from "../signal/SignalBusFactory.js"
import * as SignalCounts from "../signal/SignalCounts.js"
import * as SignalFeed from "../signal/SignalFeed.js"
import type { Certificates } from "../transport/Certificates.js"
import type { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import { Transport, withNamesFor } from "../transport/Transport.js"
import * as Parameter from "../url/Parameter.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"
import * as Deflate from "../wire/Deflate.js"
import * as CapacityCheck from "./CapacityCheck.js"
import { Checkpoint, type Status } from "./Checkpoint.js"
import type * as Keyring from "./Keyring.js"
import * as Peers from "./Peers.js"
import * as Router from "./Router.js"
import * as Runner from "./Runner.js"
import type { Session } from "./Session.js"
import * as SessionStore from "./SessionStore.js"
import * as Streams from "./Streams.js"
import * as TunnelMetrics from "./TunnelMetrics.js"

export class Tunnel extends Context.Tag("nodepass/Tunnel")<
  Tunnel,
  {
    readonly config: TunnelConfig
    readonly status: Effect.Effect<Status>
    /** Calls the listener when a session gets or loses a control connection, until the returned function is called. */
    readonly watch: (listener: () => void) => () => void
    /** Completes once visitors can be served: a session has a control connection, or the tunnel forwards by itself. */
    readonly ready: Effect.Effect<void>
    readonly checkpoint: Effect.Effect<Checkpoint>
    /** A checkpoint now and at each report interval. */
    readonly checkpoints: Stream.Stream<Checkpoint>
    /**
     * Events from now on, until the tunnel's scope closes: sessions, launches, refusals, the pool, keys.
     *
     * Each subscriber has its own buffer; one that does not keep up loses its oldest events and receives `Lagged`.
     */
    readonly events: (options?: EventBus.Options) => Stream.Stream<TunnelEvent>
    /**
     * Each signal that is sent or received from now on, on the sessions of this side, until the tunnel's scope closes.
     *
     * Listening changes nothing: signals are handled as without it, and never wait for a listener. Each has its own sliding
     * buffer; one that does not keep up loses its oldest signals and receives `Lagged`.
     */
    readonly signals: (options?: SignalFeed.Options) => Stream.Stream<SignalFeed.Heard>
    /**
     * Replaces the tunnel key on this side; the previous key is accepted for a grace period.
     *
     * Replace it on the other side within that time, in either order: no connection is interrupted. A client reconnects
     * its control connection with the new key. When the grace period ends, a server resets a control connection that an
     * outdated key opened. Fails with `TooManyKeys` while four keys are in force.
     */
    readonly replaceKey: Keyring.Replace
    /** Replaces every idle pool connection, e.g. after the network changed. Does nothing without a session. */
    readonly flush: Effect.Effect<void>
    /** The addresses that this side listens on now: for clients of a server, and for visitors. */
    readonly addresses: Effect.Effect<{
      readonly tunnel: Option.Option<Address>
      readonly visitors: Option.Option<Address>
    }>
  }
>() {}

/** What a tunnel needs of its host. `NodeHost.layer` of `nodepass-effect/node` provides all but the settings. */
export type Environment = Certificates | Crypto | Parts | Settings | Transport

/**
 * Opens the tunnel's ports and serves until its scope closes.
 *
 * Closing stops it gracefully: the ports close, visitors may finish within the shutdown timeout, then every socket is
 * closed. Fails when a port cannot be opened. A peer that cannot be reached is not a failure: the tunnel waits for it.
 */
export const layer = (config: TunnelConfig): Layer.Layer<Tunnel, Runner.OpenError, Environment> =>
  Layer.scoped(Tunnel, make(config)).pipe(
    Layer.provide(Egress.layer({ proxy: config.proxy })),
    Layer.provide(
      Layer.mergeAll(
        DatagramRelay.layer({ idle: Option.getOrElse(config.read, () => Parameter.readDefaults.udp) }),
        relayLayer({
          idle: Option.getOrElse(config.read, () => Parameter.readDefaults.tcp),
          congestion: config.congestion
        })
      )
    ),
    Layer.provide(
      // Fresh: two tunnels of one host must not share them.
      Layer.fresh(
        Layer.mergeAll(
          Router.layer({ choose: config._tag === "Client" && config.servers === "all" ? "turns" : "preferred" }),
          Meter.layer,
          Slots.layer({ limit: config.slot }).pipe(Layer.provideMerge(Refusals.layer)),
          Peers.layer,
          SignalCounts.layer,
          SignalFeed.layer,
          Streams.layer,
          Targets.layer({ targets: config.targets, balance: config.balance, check: finite(config.check) }),
          Throttle.layer({ rate: Number.isFinite(config.rate) ? config.rate * bytesPerMegabit : undefined })
        ).pipe(Layer.provideMerge(Layer.merge(Deadlines.layer, EventBus.layer)))
      )
    ),
    Layer.provide(
      Layer.effect(
        Transport,
        Effect.map(Transport, (transport) => withNamesFor(transport, config.dns))
      )
    )
  )

/** Parts of a tunnel that a host can replace by a layer of its own. */
export type Parts =
  | Capacity.Capacity
  | Deflate.Deflate
  | PoolFactory.PoolFactory
  | PoolPolicy.PoolPolicy
  | RelayFactory.RelayFactory
  | SessionStore.SessionStore
  | SignalBusFactory.SignalBusFactory

/**
 * The default parts, which need nothing of the machine: our pool, its adaptive policy and our signal bus, the portable
 * relay, no compression, no stored sessions.
 */
export const layerDefaults: Layer.Layer<Parts> = Layer.mergeAll(
  Capacity.layerUnlimited,
  Deflate.layerNone,
  PoolFactory.layer,
  PoolPolicy.layer,
  RelayFactory.layerPortable,
  SessionStore.layerNone,
  SignalBusFactory.layer
)

// internal

const bytesPerMegabit = 125_000

const relayLayer = (options: Relay.Options) =>
  Layer.unwrapEffect(Effect.map(RelayFactory.RelayFactory, ({ layer }) => layer(options)))

const finite = (duration: Duration.Duration) => (Duration.isFinite(duration) ? duration : undefined)

const make = (config: TunnelConfig) =>
  Effect.gen(function* () {
    const events = yield* EventBus.EventBus
    const seen = yield* SignalFeed.SignalFeed
    const router = yield* Router.Router
    const relay = yield* Relay.Relay
    const { reportInterval } = yield* Settings
    const metrics = yield* TunnelMetrics.begin(config)
    const phase: Phase = { runner: undefined, isStopping: false }
    const { figures, standing } = yield* makeFigures(config, phase)

    // Runs last, when the visitors that were allowed to finish have been counted.
    yield* Effect.addFinalizer(() => (phase.runner === undefined ? Effect.void : Effect.map(figures, metrics.end)))
    // Closes the ports first, then drains, then closes the visitors.
    const visitors = yield* Effect.acquireRelease(Scope.make(), (scope, exit) =>
      Effect.zipRight(Scope.close(scope, exit), relay.abortNow ?? Effect.void)
    )
    yield* Effect.addFinalizer((exit) => {
      phase.isStopping = true
      return Exit.isFailure(exit) && !Exit.isInterrupted(exit) ? Effect.void : drain
    })
    yield* CapacityCheck.check(config)
    const runner = (phase.runner = yield* Runner.open(config, visitors))
    yield* Effect.logInfo(`relay: ${relay.description}`)

    // Each checkpoint publishes the metrics.
    const checkpoint = Effect.map(figures, (figures) => {
      metrics.publish(figures)
      return figures.checkpoint
    })
    const checkpoints = Stream.repeatEffectWithSchedule(checkpoint, Schedule.spaced(reportInterval))
    const report = ({ line }: Checkpoint) => (config.log === "event" ? Effect.logInfo(line) : Effect.void)
    yield* Effect.forkScoped(Stream.runForEach(checkpoints, report))

    return Tunnel.of({
      config,
      status: Effect.map(standing, ({ status }) => status),
      watch: router.watch,
      ready: runner.role === "forward" ? Effect.void : router.ready,
      checkpoint,
      checkpoints,
      events: (options) => Stream.unwrapScoped(events.subscribe(options)),
      signals: (options) => Stream.unwrapScoped(seen.subscribe(options)),
      replaceKey: runner.replaceKey,
      flush: Effect.flatMap(router.sessions, (sessions) =>
        Effect.forEach(sessions, ({ flush }) => Effect.ignore(flush), { discard: true })
      ),
      addresses: Effect.sync(() => ({ tunnel: runner.tunnel, visitors: runner.visitors() }))
    })
  })

interface Phase {
  /** Set once the ports are open. */
  runner: Runner.Runner | undefined
  isStopping: boolean
}

/** Reads the status and the figures of the tunnel. */
const makeFigures = (config: TunnelConfig, phase: Phase) =>
  Effect.gen(function* () {
    const router = yield* Router.Router
    const { traffic } = yield* Meter.Meter
    const refusals = yield* Refusals.Refusals
    const relay = yield* Relay.Relay
    const datagramRelay = yield* DatagramRelay.DatagramRelay
    const signals = yield* SignalCounts.SignalCounts
    const targets = yield* Targets.Targets
    const peers = yield* Peers.Peers

    const standing = Effect.gen(function* () {
      if (phase.isStopping) return stopping
      const sessions = yield* router.sessions
      const isServing = phase.runner?.role === "forward" || sessions.some(isAttached)
      const trouble = yield* targets.trouble
      if (isServing && Option.isSome(trouble)) {
        const failures = trouble.value.failures.map(({ message }) => message)
        return { status: "waiting", reason: `no target answers: ${failures.join("; ")}` } as const
      }
      const reaching = sessions.filter((session) => session.isAttached() && session.visitors === "local")
      const troubles = Arr.getSomes(yield* Effect.forEach(reaching, ({ trouble }) => trouble))
      if (troubles.length > 0 && troubles.length === reaching.length) {
        const peer = config._tag === "Server" ? "client" : "server"
        return { status: "waiting", reason: `the ${peer} reaches no target: ${troubles.join("; ")}` } as const
      }
      return { status: isServing ? "serving" : "waiting", reason: Peers.explain(peers.list(), isServing) } as const
    })
    const figures = Effect.gen(function* () {
      const sessions = yield* router.sessions
      const attached = sessions.filter(isAttached)
      const pools = yield* Effect.forEach(sessions, ({ stats }) => stats)
      const trips = yield* Effect.forEach(attached, ({ roundTrip }) => roundTrip)
      const sum = (figure: "idle" | "capacity" | "waiting") => pools.reduce((sum, pool) => sum + pool[figure], 0)
      const tcp = yield* relay.count
      const udp = yield* datagramRelay.count
      const fields = {
        ...(yield* standing),
        mode: modeOf(phase.runner),
        ping: Option.map(Option.firstSomeOf(trips), Duration.toMillis),
        pool: { idle: sum("idle"), capacity: sum("capacity"), waiting: sum("waiting") },
        tcps: tcp.live,
        udps: udp.live,
        visitors: tcp.total + udp.total,
        ...traffic,
        refused: yield* refusals.counts
      }
      return {
        checkpoint: new Checkpoint(fields, { disableValidation: true }),
        visitors: { tcp: tcp.total, udp: udp.total },
        signals,
        sessions: attached.length
      }
    })
    return { standing, figures }
  })

const stopping = { status: "stopping", reason: "visitors who are being served may finish" } as const

/** As the URL's `mode` counts. */
const modeOf = (runner: Runner.Runner | undefined): Checkpoint["mode"] =>
  runner?.role === "send" || runner?.role === "through" ? 2 : 1

const isAttached = (session: Session["Type"]): boolean => session.isAttached()

const drain = Effect.gen(function* () {
  const relay = yield* Relay.Relay
  const { shutdownTimeout } = yield* Settings
  const { live } = yield* relay.count
  if (live === 0) return yield* Effect.logInfo("stopped")
  yield* Effect.logInfo(`stopping: visitors may finish within ${Duration.format(shutdownTimeout)}`)
  // Finalizers are uninterruptible: the timeout could not end the wait.
  const drained = yield* Effect.timeoutOption(Effect.interruptible(relay.drained), shutdownTimeout)
  yield* Option.isSome(drained)
    ? Effect.logInfo("stopped")
    : Effect.logWarning("stopped: visitors that did not finish were reset")
})
