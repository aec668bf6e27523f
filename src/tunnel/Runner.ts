/**
 * What a side of a tunnel does, as its configuration has it: it serves a client, goes through a server, or forwards.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import * as Certificates from "../transport/Certificates.js"
import * as Client from "./Client.js"
import type { Crypto } from "../transport/Crypto.js"
import type { DatagramRelay } from "../relay/DatagramRelay.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { Deflate } from "../wire/Deflate.js"
import type { EventBus } from "../core/EventBus.js"
import { Egress } from "../relay/Egress.js"
import * as Failover from "./Failover.js"
import * as DatagramChannel from "../relay/DatagramChannel.js"
import * as VisitorPort from "../relay/VisitorPort.js"
import * as Keyring from "./Keyring.js"
import { Router, type RouteTimeout } from "./Router.js"
import type { Refusals } from "../core/Refusals.js"
import type { Relay } from "../relay/Relay.js"
import * as Server from "./Server.js"
import type { SessionStore } from "./SessionStore.js"
import { Settings } from "../transport/Settings.js"
import type { Slots } from "../relay/Slots.js"
import { Targets } from "../relay/Targets.js"
import { Transport, type TransportError } from "../transport/Transport.js"
import type { ClientConfig, ServerConfig, TunnelConfig } from "../url/TunnelUrl.js"
import { refuse, type UrlError } from "../url/UrlError.js"
import type { PoolFactory } from "../pool/PoolFactory.js"
import type { PoolPolicy } from "../pool/PoolPolicy.js"
import type { SignalBusFactory } from "../signal/SignalBusFactory.js"

/** A role at work. */
export interface Runner {
  /** The mode in force, as the URL's `mode` counts. */
  readonly mode: 1 | 2
  /** Where clients connect to this side; for single-end forwarding, where visitors come to. */
  readonly tunnel: Option.Option<Address>
  /** Where visitors come to this side now. */
  readonly visitors: () => Option.Option<Address>
  /** Serves by itself, with no session. */
  readonly alone: boolean
  /** Puts another tunnel key in force; does nothing for a role that has none. */
  readonly replaceKey: Keyring.Replace
}

type Environment =
  | Certificates.Certificates
  | Crypto
  | DatagramRelay
  | Deadlines
  | Deflate
  | Egress
  | EventBus
  | PoolFactory
  | PoolPolicy
  | Router
  | Refusals
  | Relay
  | Scope.Scope
  | SessionStore
  | Settings
  | SignalBusFactory
  | Slots
  | Targets
  | Transport

/** What keeps a role from beginning. */
export type OpenError = Certificates.CertificateError | TransportError | UrlError

/**
 * Opens the role's ports and serves in the present scope, whose end stops accepting and ends the sessions.
 *
 * Visitors, and the connections they are served on, live in `visitors`. Fails when a port cannot be opened, and when a
 * target would be the tunnel's own port, or a certificate file is of no use.
 */
export const open = (config: TunnelConfig, visitors: Scope.Scope): Effect.Effect<Runner, OpenError, Environment> =>
  config._tag === "Server" ? serve(config, visitors) : connect(config, visitors)

// internal

const serve = (config: ServerConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const tls = yield* certificateOf(config)
    const keyring = yield* keyringOf(config)
    const front =
      config.mode === "send" || config.targets.length > 1
        ? Option.none()
        : config.mode === "receive"
          ? Option.some(yield* VisitorPort.open(config.targets[0]))
          : yield* frontIfFree(config.targets[0])
    const listener = yield* transport.listen(config.tunnel)
    const receiver = Option.isSome(front) ? "server" : "client"
    if (receiver === "client") {
      yield* refuseOwnPort(config, listener.address)
      yield* (yield* Targets).probe
    }

    yield* Effect.logInfo("waiting for a client").pipe(
      Effect.annotateLogs({
        tunnel: String(listener.address),
        ...Option.match(front, {
          onNone: () => ({ mode: 2, target: config.targets.join(",") }),
          onSome: ({ address }) => ({ mode: 1, visitors: String(address) })
        })
      })
    )
    if (Option.isSome(front)) yield* VisitorPort.serve(front.value, yield* throughTunnel(config), visitors)
    yield* Effect.forkScoped(
      Server.run({ listener, keyring, max: config.max, receiver, connections: visitors, ...tls })
    )
    return {
      mode: receiver === "server" ? 1 : 2,
      tunnel: Option.some(listener.address),
      visitors: () => Option.map(front, ({ address }) => address),
      alone: false,
      replaceKey: keyring.replace
    } satisfies Runner
  })

const connect = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const front =
      config.mode === "through" || config.standbys.length > 0
        ? Option.none()
        : config.mode === "forward"
          ? Option.some(yield* VisitorPort.open(config.tunnel))
          : yield* Effect.option(VisitorPort.open(config.tunnel))
    return Option.isSome(front) ? yield* forward(config, front.value, visitors) : yield* through(config, visitors)
  })

/** Single-end forwarding: visitors come to the tunnel address and are brought straight to the target. */
const forward = (config: ClientConfig, front: VisitorPort.VisitorPort, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const { associate, connect } = yield* Egress
    yield* refuseOwnPort(config, front.address)
    yield* (yield* Targets).probe
    yield* VisitorPort.serve(front, { connect, associate, refusal: "target", proxyIn: config.proxyIn }, visitors)
    yield* Effect.logInfo("forwarding").pipe(
      Effect.annotateLogs({ mode: 1, visitors: String(front.address), target: config.targets.join(",") })
    )
    return {
      mode: 1,
      tunnel: Option.some(front.address),
      visitors: () => Option.some(front.address),
      alone: true,
      replaceKey: () => Effect.void
    } satisfies Runner
  })

const through = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const tunnel = yield* Effect.scope
    const services = yield* Effect.context<
      DatagramRelay | Deadlines | Refusals | Relay | Settings | Slots | Transport
    >()
    const keyring = yield* keyringOf(config)
    const ways = yield* throughTunnel(config)
    const authorities = yield* authoritiesOf(config)
    const { probe } = yield* Targets
    const servers = [config.tunnel, ...config.standbys]
    let port: { readonly address: Address; readonly scope: Scope.CloseableScope } | undefined
    let probes: Scope.CloseableScope | undefined
    /** Where visitors come to, as the servers have it. */
    const flows = new Map<Address, "local" | "remote">()

    const closePort = Effect.suspend(() => {
      const open = port
      port = undefined
      return open === undefined ? Effect.void : Scope.close(open.scope, Exit.void)
    })
    const stopProbes = Effect.suspend(() => {
      const running = probes
      probes = undefined
      return running === undefined ? Effect.void : Scope.close(running, Exit.void)
    })
    const startProbes = Effect.gen(function* () {
      if (probes !== undefined) return
      probes = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
      yield* Scope.extend(probe, probes)
    }).pipe(Effect.onInterrupt(() => stopProbes))
    const openPort = Effect.gen(function* () {
      if (port !== undefined) return
      if (config.targets.length > 1) return yield* new Client.SeveralTargets()
      const scope = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
      yield* Effect.gen(function* () {
        const front = yield* VisitorPort.open(config.targets[0])
        yield* VisitorPort.serve(front, ways, visitors)
        port = { address: front.address, scope }
        yield* Effect.logInfo("visitors come to this side").pipe(
          Effect.annotateLogs({ visitors: String(front.address) })
        )
      }).pipe(
        Scope.extend(scope),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    }).pipe(Effect.provide(services))

    const deciding = yield* Effect.makeSemaphore(1)
    const decide = Effect.suspend(() => {
      const any = new Set(flows.values())
      return Effect.zipRight(any.has("remote") ? startProbes : stopProbes, any.has("local") ? openPort : closePort)
    }).pipe(deciding.withPermits(1))
    const settle = (server: Address, where: "local" | "remote") =>
      Effect.zipRight(
        Effect.sync(() => flows.set(server, where)),
        decide
      )
    // One that is left has no say any more, unless it is the last.
    const leave = (server: Address) =>
      Effect.suspend(() => (flows.size > 1 && flows.delete(server) ? Effect.ignore(decide) : Effect.void))
    const goThrough = (address: Address, rank: number) => (tell: (outcome: Failover.Outcome) => void) =>
      Effect.zipRight(
        Effect.addFinalizer(() => leave(address)),
        Client.run({
          address,
          rank,
          isOneOfSeveral: servers.length > 1,
          tell,
          keyring,
          min: config.min,
          tls: config.tls,
          authorities,
          openPort: (where) => settle(address, where)
        })
      )
    const runs = servers.map((address, rank) => ({ name: String(address), run: goThrough(address, rank) }))

    yield* Effect.logInfo("connecting").pipe(
      Effect.annotateLogs({ mode: 2, server: servers.join(","), target: config.targets.join(",") })
    )
    yield* config.servers === "failover" && runs.length > 1
      ? Effect.forkScoped(Failover.run({ servers: runs }))
      : Effect.forEach(runs, ({ run }) => Effect.forkScoped(run(constVoid)), { discard: true })
    return {
      mode: 2,
      tunnel: Option.none(),
      visitors: () => Option.fromNullable(port?.address),
      alone: false,
      replaceKey: keyring.replace
    } satisfies Runner
  })

/** The certificate that data connections are secured by, at each moment. */
const certificateOf = ({ tls }: ServerConfig) =>
  Effect.gen(function* () {
    const certificates = yield* Certificates.Certificates
    const { reloadInterval } = yield* Settings
    switch (tls.mode) {
      case "plain":
        return { tls: tls.mode, certificate: Option.none() } as const
      case "self-signed":
        return { tls: tls.mode, certificate: Option.some(Effect.succeed(yield* certificates.selfSigned)) } as const
      case "verified": {
        const { get } = yield* Certificates.current(tls, { reloadInterval })
        return { tls: tls.mode, certificate: Option.some(get) } as const
      }
    }
  })

/** The authorities in the file, or those it had when it was last of use. */
const authoritiesOf = ({ authorities: file }: ClientConfig) =>
  Effect.gen(function* () {
    const certificates = yield* Certificates.Certificates
    if (Option.isNone(file)) return Effect.succeed([])
    let known = yield* certificates.authorities(file.value)
    return Effect.matchEffect(certificates.authorities(file.value), {
      onFailure: ({ message }) => Effect.as(Effect.logWarning(`${message}; those from before stay trusted`), known),
      onSuccess: (authorities) => Effect.sync(() => (known = authorities))
    })
  })

/** Visitors are brought to the other side, which dials the target. */
const throughTunnel = ({
  proxyIn
}: TunnelConfig): Effect.Effect<VisitorPort.Routes<RouteTimeout>, never, Router | Refusals | Settings> =>
  Effect.gen(function* () {
    const link = yield* Router
    const drops = yield* DatagramChannel.makeDrops
    return {
      connect: link.open,
      associate: (visit) =>
        Effect.map(link.open(visit), (connection) => DatagramChannel.overConnection(connection, drops)),
      refusal: "pool",
      proxyIn
    }
  })

/** Listens, or says `None` where the address is not this machine's to listen on, or in use. */
const frontIfFree = (address: Address) =>
  Effect.catchIf(
    Effect.asSome(VisitorPort.open(address)),
    ({ reason }) => reason === "AddressInUse" || reason === "AddressUnavailable" || reason === "UnknownHost",
    () => Effect.succeedNone
  )

/** A target that leads back to the port where visitors, or clients, come in would have the tunnel visit itself. */
const refuseOwnPort = ({ targets }: TunnelConfig, own: Address) =>
  Effect.flatMap(Transport, (transport) =>
    Effect.forEach(
      targets.filter(({ port }) => port === own.port),
      (target) =>
        Effect.flatMap(transport.reaches(target, own), (same) =>
          same
            ? refuse("target port", String(target.port), "another port than the tunnel's on the same address")
            : Effect.void
        ),
      { discard: true }
    )
  )

const keyringOf = ({ key }: TunnelConfig) =>
  Effect.zipRight(
    Option.isNone(key)
      ? Effect.logWarning("no key in the URL: whoever reaches the tunnel port can use this tunnel")
      : Effect.void,
    Keyring.make(key)
  )
