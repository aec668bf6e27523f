/**
 * A tunnel's own side, whole: what the command runs and hosts embed. Closing its scope is the graceful stop.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Address } from "./Address.js"
import { Checkpoint, type Status } from "./Checkpoint.js"
import * as Client from "./Client.js"
import type { Crypto } from "./Crypto.js"
import * as Egress from "./Egress.js"
import * as Ingress from "./Ingress.js"
import * as Key from "./Key.js"
import * as Link from "./Link.js"
import * as Meter from "./Meter.js"
import * as Refusals from "./Refusals.js"
import * as Relay from "./Relay.js"
import * as Server from "./Server.js"
import { Settings } from "./Settings.js"
import * as Slots from "./Slots.js"
import { type Listener, Transport, TransportError } from "./Transport.js"
import type { ClientConfig, ServerConfig, TunnelConfig } from "./TunnelUrl.js"

export class Tunnel extends Context.Tag("nodepass/Tunnel")<
  Tunnel,
  {
    readonly config: TunnelConfig
    readonly status: Effect.Effect<Status>
    /** Completes once visitors are served: a session stands, or the tunnel forwards by itself. */
    readonly ready: Effect.Effect<void>
    readonly checkpoint: Effect.Effect<Checkpoint>
    /** A checkpoint now and each report interval. */
    readonly checkpoints: Stream.Stream<Checkpoint>
    /** Has every idle pool connection replaced, e.g. after the network changed; nothing without a session. */
    readonly flush: Effect.Effect<void>
    /** Where clients connect to a server, and where visitors come to, as far as this side listens there now. */
    readonly addresses: Effect.Effect<{
      readonly tunnel: Option.Option<Address>
      readonly visitors: Option.Option<Address>
    }>
  }
>() {}

/**
 * Opens the tunnel's ports and serves until its scope closes.
 *
 * Closing is the graceful stop: the ports close, visitors being served may finish within the shutdown timeout, then
 * every socket is closed. Fails when a port cannot be opened; a peer that is away is no failure, it is waited for.
 */
export const layer = (config: TunnelConfig): Layer.Layer<Tunnel, TransportError, Crypto | Settings | Transport> =>
  Layer.scoped(Tunnel, make(config)).pipe(
    Layer.provide(Egress.layer({ target: config.target })),
    Layer.provide(Relay.layer({ idle: config.read })),
    Layer.provide(Layer.mergeAll(Link.layer, Meter.layer, Refusals.layer, Slots.layer({ limit: config.slot })))
  )

// internal

/** What running a role found out. */
interface Role {
  readonly mode: 1 | 2
  readonly tunnel: Option.Option<Address>
  /** Where visitors come to now. */
  readonly visitors: () => Option.Option<Address>
  /** Serves by itself, with no session. */
  readonly alone: boolean
}

const make = (config: TunnelConfig) =>
  Effect.gen(function* () {
    const link = yield* Link.Link
    const { traffic } = yield* Meter.Meter
    const refusals = yield* Refusals.Refusals
    const relay = yield* Relay.Relay
    const { reportInterval } = yield* Settings
    let stopping = false

    // Closed in this order: the ports, then after the drain the visitors.
    const visitors = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        Effect.sync(() => {
          stopping = true
        }),
        drain
      )
    )

    const role = yield* config._tag === "Server" ? serve(config, visitors) : connect(config, visitors)

    const status = Effect.map(link.session, (session): Status =>
      stopping ? "stopping" : role.alone || Option.isSome(session) ? "serving" : "waiting"
    )
    const checkpoint = Effect.gen(function* () {
      const session = Option.getOrUndefined(yield* link.session)
      const { live, total } = yield* relay.count
      const figures = {
        status: yield* status,
        mode: role.mode,
        ping: Option.map(session === undefined ? Option.none() : yield* session.bus.roundTrip, Duration.toMillis),
        pool: session === undefined ? { idle: 0, capacity: 0, waiting: 0 } : yield* session.pool.stats,
        tcps: live,
        visitors: total,
        ...traffic,
        refused: yield* refusals.counts
      }
      return new Checkpoint(figures, { disableValidation: true })
    })
    const checkpoints = Stream.repeatEffectWithSchedule(checkpoint, Schedule.spaced(reportInterval))
    if (config.log === "event") {
      yield* Effect.forkScoped(Stream.runForEach(checkpoints, ({ line }) => Effect.logInfo(line)))
    }

    return Tunnel.of({
      config,
      status,
      ready: role.alone ? Effect.void : link.ready,
      checkpoint,
      checkpoints,
      flush: Effect.flatMap(link.session, (session) =>
        Option.match(session, { onNone: () => Effect.void, onSome: ({ flush }) => Effect.ignore(flush) })
      ),
      addresses: Effect.sync(() => ({ tunnel: role.tunnel, visitors: role.visitors() }))
    })
  })

const drain = Effect.gen(function* () {
  const relay = yield* Relay.Relay
  const { shutdownTimeout } = yield* Settings
  const { live } = yield* relay.count
  if (live === 0) return
  yield* Effect.logInfo(`stopping: visitors being served may finish within ${Duration.format(shutdownTimeout)}`)
  const drained = yield* Effect.timeoutOption(relay.drained, shutdownTimeout)
  if (Option.isSome(drained)) return
  yield* Effect.logWarning("stopping: visitors who did not finish are cut off")
})

const serve = (config: ServerConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const link = yield* Link.Link
    const transport = yield* Transport
    const key = yield* stretch(config)
    const port =
      config.mode === "send"
        ? Option.none()
        : config.mode === "receive"
          ? Option.some(yield* transport.listen(config.target))
          : yield* listenIfFree(config.target)
    const listener = yield* transport.listen(config.tunnel)
    const receiver = Option.isSome(port) ? "server" : "client"

    yield* Effect.logInfo("waiting for a client").pipe(
      Effect.annotateLogs({
        tunnel: String(listener.address),
        ...Option.match(port, {
          onNone: () => ({ mode: 2, target: String(config.target) }),
          onSome: ({ address }) => ({ mode: 1, visitors: String(address) })
        })
      })
    )
    if (Option.isSome(port)) {
      yield* within(visitors, Ingress.serve({ listener: port.value, open: link.open, refusal: "pool" }))
    }
    yield* Effect.forkScoped(Server.run({ listener, key, max: config.max, receiver, connections: visitors }))
    return {
      mode: receiver === "server" ? 1 : 2,
      tunnel: Option.some(listener.address),
      visitors: () => Option.map(port, ({ address }) => address),
      alone: false
    } satisfies Role
  })

const connect = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const port =
      config.mode === "through"
        ? Option.none()
        : config.mode === "forward"
          ? Option.some(yield* transport.listen(config.tunnel))
          : yield* Effect.option(transport.listen(config.tunnel))
    return Option.isSome(port) ? yield* forward(config, port.value, visitors) : yield* through(config, visitors)
  })

/** Single-end forwarding: visitors come to the tunnel address and are brought straight to the target. */
const forward = (config: ClientConfig, listener: Listener, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const { tcpDialTimeout } = yield* Settings
    const open = Effect.timeoutFail(transport.connect(config.target), {
      duration: tcpDialTimeout,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address: config.target })
    })
    yield* within(visitors, Ingress.serve({ listener, open: () => open, refusal: "target" }))
    yield* Effect.logInfo("forwarding").pipe(
      Effect.annotateLogs({ mode: 1, visitors: String(listener.address), target: String(config.target) })
    )
    return {
      mode: 1,
      tunnel: Option.some(listener.address),
      visitors: () => Option.some(listener.address),
      alone: true
    } satisfies Role
  })

const through = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const link = yield* Link.Link
    const transport = yield* Transport
    const tunnel = yield* Effect.scope
    const services = yield* Effect.context<Refusals.Refusals | Relay.Relay | Slots.Slots>()
    const key = yield* stretch(config)
    let port: { readonly address: Address; readonly scope: Scope.CloseableScope } | undefined

    const closePort = Effect.suspend(() => {
      const open = port
      port = undefined
      return open === undefined ? Effect.void : Scope.close(open.scope, Exit.void)
    })
    const openPort = Effect.gen(function* () {
      if (port !== undefined) return
      const scope = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
      yield* Effect.gen(function* () {
        const listener = yield* transport.listen(config.target)
        yield* within(visitors, Ingress.serve({ listener, open: link.open, refusal: "pool" }))
        port = { address: listener.address, scope }
        yield* Effect.logInfo("visitors come to this side").pipe(
          Effect.annotateLogs({ visitors: String(listener.address) })
        )
      }).pipe(
        Scope.extend(scope),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    }).pipe(Effect.provide(services))

    yield* Effect.logInfo("connecting").pipe(
      Effect.annotateLogs({ mode: 2, server: String(config.tunnel), target: String(config.target) })
    )
    yield* Effect.forkScoped(
      Client.run({
        address: config.tunnel,
        key,
        min: config.min,
        openPort: (where) => (where === "here" ? openPort : closePort)
      })
    )
    return {
      mode: 2,
      tunnel: Option.none(),
      visitors: () => Option.fromNullable(port?.address),
      alone: false
    } satisfies Role
  })

/** Runs in the present scope a loop whose visitors live in another. */
const within = <R>(visitors: Scope.Scope, loop: Effect.Effect<never, never, R | Scope.Scope>) =>
  Effect.forkScoped(Effect.provideService(loop, Scope.Scope, visitors))

/** Listens, or says `None` where the address is not this machine's to listen on, or in use. */
const listenIfFree = (address: Address) =>
  Effect.flatMap(Transport, (transport) =>
    Effect.catchIf(
      Effect.asSome(transport.listen(address)),
      ({ reason }) => reason === "AddressInUse" || reason === "AddressUnavailable" || reason === "UnknownHost",
      () => Effect.succeedNone
    )
  )

const stretch = ({ key }: TunnelConfig) =>
  Effect.zipRight(
    Option.isNone(key)
      ? Effect.logWarning("no key in the URL: whoever reaches the tunnel port can use this tunnel")
      : Effect.void,
    Key.stretch(key)
  )
