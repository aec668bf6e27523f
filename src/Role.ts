/**
 * What a side of a tunnel does, as its configuration has it: it serves a client, goes through a server, or forwards.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "./Address.js"
import * as Client from "./Client.js"
import type { Crypto } from "./Crypto.js"
import type { Egress } from "./Egress.js"
import * as Ingress from "./Ingress.js"
import * as Key from "./Key.js"
import { Link } from "./Link.js"
import type { Refusals } from "./Refusals.js"
import type { Relay } from "./Relay.js"
import * as Server from "./Server.js"
import { Settings } from "./Settings.js"
import type { Slots } from "./Slots.js"
import { type Listener, Transport, TransportError } from "./Transport.js"
import type { ClientConfig, ServerConfig, TunnelConfig } from "./TunnelUrl.js"

/** A role at work. */
export interface Role {
  /** The mode in force, as the URL's `mode` counts. */
  readonly mode: 1 | 2
  /** Where clients connect to this side; for single-end forwarding, where visitors come to. */
  readonly tunnel: Option.Option<Address>
  /** Where visitors come to this side now. */
  readonly visitors: () => Option.Option<Address>
  /** Serves by itself, with no session. */
  readonly alone: boolean
}

type Environment = Crypto | Egress | Link | Refusals | Relay | Scope.Scope | Settings | Slots | Transport

/**
 * Opens the role's ports and serves in the present scope, whose end stops accepting and ends the sessions.
 *
 * Visitors, and the connections they are served on, live in `visitors`. Fails when a port cannot be opened.
 */
export const open = (config: TunnelConfig, visitors: Scope.Scope): Effect.Effect<Role, TransportError, Environment> =>
  config._tag === "Server" ? serve(config, visitors) : connect(config, visitors)

// internal

const serve = (config: ServerConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const link = yield* Link
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
    const link = yield* Link
    const transport = yield* Transport
    const tunnel = yield* Effect.scope
    const services = yield* Effect.context<Refusals | Relay | Slots>()
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
