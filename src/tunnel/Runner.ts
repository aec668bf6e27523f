/**
 * Opens a tunnel by its configuration, in one of four roles: a server that receives visitors or sends them to its
 * client, a client that forwards by itself or connects to servers.
 */
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import * as DatagramChannel from "../relay/DatagramChannel.js"
import * as Capacity from "../relay/Capacity.js"
import { Egress } from "../relay/Egress.js"
import { Targets } from "../relay/Targets.js"
import * as VisitorPort from "../relay/VisitorPort.js"
import * as Certificates from "../transport/Certificates.js"
import { Settings } from "../transport/Settings.js"
import { Transport, type TransportError } from "../transport/Transport.js"
import type { ClientConfig, ServerConfig, TunnelConfig } from "../url/TunnelUrl.js"
import { refuse, type UrlError } from "../url/UrlError.js"
import * as Client from "./Client.js"
import * as Failover from "./Failover.js"
import * as Keyring from "./Keyring.js"
import { Peers } from "./Peers.js"
import { Router, type RouteTimeout } from "./Router.js"
import * as Server from "./Server.js"
import * as TunnelPort from "./TunnelPort.js"
import * as VisitorSide from "./VisitorSide.js"

export interface Runner {
  /** What this side does; the URL's `mode`, or the choice that `auto` came to. */
  readonly role: "receive" | "send" | "forward" | "through"
  /** Where clients connect to a server, or visitors to a client that forwards. */
  readonly tunnel: Option.Option<Address>
  /** Where visitors connect to this side now. */
  readonly visitors: () => Option.Option<Address>
  /** Replaces the tunnel key. Does nothing for a client that forwards by itself. */
  readonly replaceKey: Keyring.Replace
}

/** Why a tunnel could not be opened. */
export type OpenError = Certificates.CertificateError | TransportError | UrlError

/**
 * Opens the ports of the role and serves until the present scope closes.
 *
 * `visitors` holds the visitors and the connections that serve them. Fails when a port cannot be opened, when a target is
 * a port of the tunnel itself, or when a certificate file cannot be used.
 */
export const open = (config: TunnelConfig, visitors: Scope.Scope) =>
  config._tag === "Server" ? serve(config, visitors) : openClient(config, visitors)

// internal

const serve = (config: ServerConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const capacity = yield* Capacity.Capacity
    const tls = yield* certificateOf(config)
    const keyring = yield* Keyring.make(config.key)
    const port =
      config.mode === "send" || config.targets.length > 1
        ? Option.none()
        : config.mode === "receive"
          ? Option.some(yield* VisitorPort.open(config.targets[0]))
          : yield* openIfFree(
              config.targets[0],
              (address) =>
                `port ${address.port} is in use, so that mode=0 makes this server send: visitors connect to the client, which listens on its own target address, and reach ${String(address)} here; for visitors on this side, free the port and set mode=1; if it is the service, set mode=2`
            )
    const tunnelPort = yield* TunnelPort.open(config.tunnel, {
      limit: Capacity.peerLimit(capacity),
      pool: config.max
    })
    const { listener } = tunnelPort
    const receiver = Option.isSome(port) ? "server" : "client"
    if (receiver === "client") yield* checkTargets(config, listener.address)

    const details = Option.match(port, {
      onNone: () => ({ mode: 2, target: config.targets.join(",") }),
      onSome: ({ address }) => ({ mode: 1, visitors: String(address) })
    })
    yield* Keyring.warnOf(config.key)
    yield* Effect.annotateLogs(Effect.logInfo("waiting for a client"), {
      tunnel: String(listener.address),
      ...details
    })
    if (Option.isSome(port)) yield* VisitorPort.serve(port.value, yield* throughTunnel(config), visitors)
    yield* Effect.forkScoped(
      Server.run({
        tunnelPort,
        keyring,
        max: Capacity.poolLimit(capacity, config.max),
        receiver,
        order: config.pool,
        streams: config.streams,
        connections: visitors,
        ...tls
      })
    )
    const runner: Runner = {
      role: receiver === "server" ? "receive" : "send",
      tunnel: Option.some(listener.address),
      visitors: () => Option.map(port, ({ address }) => address),
      replaceKey: keyring.replace
    }
    return runner
  })

const openClient = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const port =
      config.mode === "through" || config.standbys.length > 0
        ? Option.none()
        : config.mode === "forward"
          ? Option.some(yield* VisitorPort.open(config.tunnel))
          : yield* openIfFree(
              config.tunnel,
              (address) =>
                `port ${address.port} is in use, so that mode=0 makes this client connect to ${String(address)} as to a server; to forward by itself, free the port and set mode=1; if that is the server, set mode=2`
            )
    return Option.isSome(port)
      ? yield* forward(config, port.value, visitors)
      : yield* connectToServers(config, visitors)
  })

/** Forwards by itself: visitors connect to the tunnel address, and are connected to a target. */
const forward = (config: ClientConfig, port: VisitorPort.VisitorPort, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const { associate, connect } = yield* Egress
    yield* checkTargets(config, port.address)
    yield* VisitorPort.serve(port, { connect, associate, refusal: "target", proxyIn: config.proxyIn }, visitors)
    yield* Effect.annotateLogs(Effect.logInfo("forwarding"), {
      mode: 1,
      visitors: String(port.address),
      target: config.targets.join(",")
    })
    const runner: Runner = {
      role: "forward",
      tunnel: Option.some(port.address),
      visitors: () => Option.some(port.address),
      replaceKey: () => Effect.void
    }
    return runner
  })

const connectToServers = (config: ClientConfig, visitors: Scope.Scope) =>
  Effect.gen(function* () {
    const keyring = yield* Keyring.make(config.key)
    const authorities = yield* authoritiesOf(config)
    const visitorSide = yield* VisitorSide.make({ config, routes: yield* throughTunnel(config), visitors })
    const { forget } = yield* Peers
    const addresses = [config.tunnel, ...config.standbys]
    const servers = addresses.map((address, rank) => ({
      name: String(address),
      run: (report: (status: Failover.ServerStatus) => void) =>
        Effect.zipRight(
          Effect.addFinalizer(() =>
            Effect.zipRight(
              Effect.sync(() => forget(String(address))),
              visitorSide.remove(address)
            )
          ),
          Client.run({
            address,
            rank,
            isOneOfSeveral: addresses.length > 1,
            report,
            keyring,
            min: config.min,
            order: config.pool,
            tls: config.tls,
            streams: config.streams,
            authorities,
            setVisitorSide: (side) => visitorSide.set(address, side)
          })
        )
    }))
    yield* Keyring.warnOf(config.key)
    yield* Effect.annotateLogs(Effect.logInfo("connecting"), {
      mode: 2,
      server: addresses.join(","),
      target: config.targets.join(",")
    })
    yield* config.servers === "failover" && servers.length > 1
      ? Effect.forkScoped(Failover.run({ servers }))
      : Effect.forEach(servers, ({ run }) => Effect.forkScoped(run(constVoid)), { discard: true })
    const runner: Runner = {
      role: "through",
      tunnel: Option.none(),
      visitors: visitorSide.address,
      replaceKey: keyring.replace
    }
    return runner
  })

/** How pool connections are secured, and how to read the certificate in force. */
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

/** Reads the file of authorities. While it cannot be read, the last ones that were read stay trusted. */
const authoritiesOf = ({ authorities: file }: ClientConfig) =>
  Effect.gen(function* () {
    const certificates = yield* Certificates.Certificates
    if (Option.isNone(file)) return Effect.succeed([])
    let known = yield* certificates.authorities(file.value)
    return Effect.matchEffect(certificates.authorities(file.value), {
      onFailure: ({ message }) => Effect.as(Effect.logWarning(`${message}; the previous ones stay trusted`), known),
      onSuccess: (authorities) => Effect.sync(() => (known = authorities))
    })
  })

/** Routes visitors to the other side, which connects them to a target. */
const throughTunnel = ({ proxyIn }: TunnelConfig) =>
  Effect.gen(function* () {
    const router = yield* Router
    const drops = yield* DatagramChannel.makeDrops
    return {
      connect: router.open,
      connectNow: router.openNow,
      isAway: router.isAway,
      associate: (visit) =>
        Effect.map(router.open(visit), (connection) => DatagramChannel.overConnection(connection, drops)),
      refusal: "pool",
      proxyIn
    } satisfies VisitorPort.Routes<RouteTimeout>
  })

/** Opens the port, unless the address belongs to another machine; or is in use, which is a warning with this text. */
const openIfFree = (address: Address, inUse: (address: Address) => string) =>
  Effect.catchIf(
    Effect.asSome(VisitorPort.open(address)),
    ({ reason }) => reason === "AddressInUse" || reason === "AddressUnavailable" || reason === "UnknownHost",
    ({ reason }) =>
      Effect.as(reason === "AddressInUse" ? Effect.logWarning(inUse(address)) : Effect.void, Option.none())
  )

/** Refuses a target that leads back to this port, so that the tunnel would connect to itself; then starts the probes. */
const checkTargets = ({ targets }: TunnelConfig, own: Address) =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const suspects = targets.filter(({ port }) => port === own.port)
    if ((yield* Effect.filter(suspects, (target) => transport.reaches(target, own))).length > 0) {
      return yield* refuse("target port", String(own.port), "another port than the tunnel's on the same address")
    }
    yield* (yield* Targets).probe
  })
