/**
 * A small simulated network with a target and visitors, to which a test adds the sides of a tunnel, or peers of its own.
 */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Address from "../../../src/core/Address.js"
import * as Deadlines from "../../../src/core/Deadlines.js"
import * as Handshake from "../../../src/wire/Handshake.js"
import type { HandshakeError } from "../../../src/wire/HandshakeError.js"
import type * as Key from "../../../src/wire/Key.js"
import * as PoolHandshake from "../../../src/wire/PoolHandshake.js"
import * as TunnelKey from "../../../src/wire/TunnelKey.js"
import * as NodeDeflate from "../../../src/node/process/NodeDeflate.js"
import * as Refusals from "../../../src/core/Refusals.js"
import * as Settings from "../../../src/transport/Settings.js"
import type { OpenError } from "../../../src/tunnel/Runner.js"
import * as SignalBus from "../../../src/signal/SignalBus.js"
import * as SimCertificates from "../../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../../src/testing/SimCrypto.js"
import type * as SimNetwork from "../../../src/testing/SimNetwork.js"
import type { TlsError } from "../../../src/transport/Tls.js"
import * as Transport from "../../../src/transport/Transport.js"
import * as Tunnel from "../../../src/tunnel/Tunnel.js"
import type { ClientConfig, ServerConfig } from "../../../src/url/TunnelUrl.js"
import { textOf, utf8 } from "../../Bytes.js"
import * as Simulated from "../../Simulated.js"
import * as configs from "./configs.js"
import * as Deflate from "../../../src/wire/Deflate.js"
import * as EventBus from "../../../src/core/EventBus.js"
import * as SignalCounts from "../../../src/signal/SignalCounts.js"
import * as SignalFeed from "../../../src/signal/SignalFeed.js"

const key = Option.some(Redacted.make("key"))
export const tunnelPort = Address.make("server", 1)
const common = { key, log: "info", read: Option.some(Duration.infinity), slot: Infinity, tunnel: tunnelPort } as const
const target = Address.make("target", 80)
export const visitorsPort = Address.make("server", 8080)
/** Visitors come to the server. */
export const serverConfig: ServerConfig = configs.server({ ...common, mode: "receive", targets: [visitorsPort] })
export const clientConfig: ClientConfig = configs.client({ ...common, mode: "through", targets: [target] })

/** The control connection of a client that sends nothing by itself. */
type Attached = Extract<Handshake.Agreement, { _tag: "New" }> & { readonly connection: Transport.Connection }

/** Answers pings on it and ignores other signals; completes with the reason it ended for. */
export const answer = ({ connection, dialect }: Pick<Attached, "connection" | "dialect">) =>
  Effect.gen(function* () {
    const bus = yield* SignalBus.make
    yield* Effect.forkScoped(Effect.ignore(bus.run(() => Effect.void)))
    return (yield* bus.attach({ connection, dialect })).reason
  }).pipe(
    Effect.scoped,
    Effect.provide([Deadlines.layer, Refusals.layer, Settings.layer()]),
    Effect.provide([EventBus.layerNoop, SignalCounts.layer, SignalFeed.layerNone])
  )

export interface World {
  readonly network: SimNetwork.SimNetwork
  /** Starts a side on a host of its own; it stops with the scope. */
  readonly start: (
    host: string,
    config: ClientConfig | ServerConfig
  ) => Effect.Effect<Tunnel.Tunnel["Type"], OpenError, Scope.Scope>
  /** Visits the target, and gives its answer: "hi" when it was served. */
  readonly visit: Effect.Effect<string, Transport.TransportError>
  /** Opens a connection from a host. */
  readonly connect: (
    host: string,
    to: Address.Address
  ) => Effect.Effect<Transport.Connection, Transport.TransportError, Scope.Scope>
  /** Agrees on a session, as the client process of this name. */
  readonly attach: (
    host: string,
    who: string
  ) => Effect.Effect<Attached, HandshakeError | Transport.TransportError, Scope.Scope>
  /** Adds a connection to the pool of a session. */
  readonly join: (
    host: string,
    keys: Key.SessionKeys,
    count: number
  ) => Effect.Effect<PoolHandshake.Entered, HandshakeError | TlsError | Transport.TransportError, Scope.Scope>
  /** The messages of all log lines, oldest first. */
  readonly log: ReadonlyArray<string>
  /** The messages of those that are warnings or errors. */
  readonly warnings: ReadonlyArray<string>
}

export interface Options {
  readonly link?: SimNetwork.Link | undefined
  /** Defaults to `11`. */
  readonly seed?: number | undefined
  readonly settings?: Partial<Settings.Settings["Type"]> | undefined
  /** What a host provides in place of the defaults. Defaults to nothing. */
  readonly host?: Layer.Layer<never> | undefined
  /** See `Simulation.Options`. */
  readonly turn?: number | undefined
}

/** Runs the program in a world of its own, at whose end every connection is closed and no fiber is left. */
export const run = <A, E>(options: Options, program: (world: World) => Effect.Effect<A, E, Scope.Scope>): A => {
  const { link, seed = 11, turn } = options
  const log: Array<string> = []
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    log.push(String(message))
    if (LogLevel.greaterThanEqual(logLevel, LogLevel.Warning)) warnings.push(String(message))
  })
  return Simulated.run({ seed, link, turn, maxSteps: 20_000_000 }, ({ network }) =>
    Effect.gen(function* () {
      const transport = yield* Effect.provide(Transport.Transport, network.host("target"))
      yield* Effect.forkScoped(Transport.serve(yield* transport.listen(target), greet))
      return yield* program({ ...make(options, seed, network), network, log, warnings })
    }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
  )
}

/** Answers the first bytes of a visitor with "hi". */
const greet = (connection: Transport.Connection) =>
  connection.read.pipe(Effect.zipRight(connection.write(utf8("hi"))), Effect.zipRight(connection.end), Effect.ignore)

const make = (
  options: Options,
  seed: number,
  network: SimNetwork.SimNetwork
): Omit<World, "network" | "log" | "warnings"> => {
  const settings = Settings.layer(options.settings)
  let host = 0
  const crypto = () => SimCrypto.layer(seed * 1000 + host++)
  const start: World["start"] = (name, config) =>
    Tunnel.layer(config).pipe(
      Layer.provide([
        network.host(name),
        crypto(),
        SimCertificates.layer(seed),
        settings,
        Tunnel.layerDefaults,
        NodeDeflate.layer,
        options.host ?? Layer.empty
      ]),
      Layer.build,
      Effect.map((services) => Context.get(services, Tunnel.Tunnel))
    )
  const connect: World["connect"] = (name, to) =>
    Effect.flatMap(Effect.provide(Transport.Transport, network.host(name)), (transport) => transport.connect(to))
  const attach: World["attach"] = (name, client) =>
    Effect.gen(function* () {
      const connection = yield* connect(name, tunnelPort)
      const salt = yield* TunnelKey.saltOf(tunnelPort)
      const psk = yield* TunnelKey.derive(yield* TunnelKey.make(key), salt)
      const agreement = yield* Handshake.accept(connection, { psk, salt, client, tls: "plain" })
      return agreement._tag === "New" ? { connection, ...agreement } : assert.fail("there was nothing to resume")
    }).pipe((attaching) =>
      // Other random bytes each time: a first message that was seen before is refused.
      Effect.suspend(() => Effect.provide(attaching, [crypto(), Deadlines.layer, Deflate.layerNone, settings]))
    )
  const join: World["join"] = (name, keys, count) =>
    Effect.gen(function* () {
      const connection = yield* connect(name, tunnelPort)
      return yield* PoolHandshake.enter(connection, { keys, count, trust: Option.none() })
    }).pipe(Effect.provide([Deadlines.layer, settings, network.host(name)]))
  const visit = Effect.gen(function* () {
    const connection = yield* connect("visitor", visitorsPort)
    yield* connection.write(new Uint8Array(1))
    const answer = yield* connection.read
    yield* connection.end
    return Option.match(answer, { onNone: () => "", onSome: (bytes) => textOf(bytes) })
  }).pipe(Effect.scoped)

  return { start, visit, connect, attach, join }
}

/** What the connection receives until it ends or breaks, as text; and the seconds that took. */
export const readUntilEnd = (connection: Transport.Connection): Effect.Effect<{ text: string; seconds: number }> => {
  const from = (text: string): Effect.Effect<string> =>
    Effect.matchEffect(connection.read, {
      onFailure: () => Effect.succeed(text),
      onSuccess: Option.match({
        onNone: () => Effect.succeed(text),
        onSome: (bytes) => from(text + textOf(bytes))
      })
    })
  return Effect.map(Effect.timed(from("")), ([took, text]) => ({ text, seconds: Duration.toSeconds(took) }))
}
