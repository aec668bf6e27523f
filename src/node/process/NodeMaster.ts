/**
 * A master as a program: its store, its HTTP or HTTPS server, its backups. Imported only when a master is run.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Https from "node:https"
import * as ApiKey from "../../master/ApiKey.js"
import * as Certificates from "../../transport/Certificates.js"
import type { InstanceStore, StoreError } from "../../master/InstanceStore.js"
import * as Master from "../../master/Master.js"
import * as MasterServer from "../../master/MasterServer.js"
import type * as Tunnel from "../../tunnel/Tunnel.js"
import type { MasterConfig } from "../../url/MasterUrl.js"
import * as Metrics from "../../master/Metrics.js"
import type { Crypto } from "../../transport/Crypto.js"
import { Settings } from "../../transport/Settings.js"
import type { TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as NodeApiKey from "./NodeApiKey.js"
import * as NodeHostFigures from "./NodeHostFigures.js"
import * as NodePage from "./NodePage.js"
import * as NodeBackup from "../store/NodeBackup.js"
import * as NodeState from "../store/NodeState.js"

export type Environment = Tunnel.Environment
export type OpenError = Certificates.CertificateError | StoreError | TransportError

export interface Options {
  readonly config: MasterConfig
  readonly version: string
}

/**
 * The master and its API, which answers requests once the layer is built.
 *
 * Closing the scope stops the tunnels: each lets its visitors finish within the shutdown timeout.
 */
export const layer = (options: Options): Layer.Layer<Services, OpenError, Environment> =>
  layerAfter(options, Layer.empty)

/** Runs the master until it is interrupted. On its first start it generates the API key and prints it. */
export const run = (options: Options): Effect.Effect<never, ApiKey.KeyNotShown | OpenError, Environment> =>
  Effect.gen(function* () {
    const { config } = options
    const firstKey = Layer.effectDiscard(NodeApiKey.create(config.state))
    const services = yield* Layer.build(layerAfter(options, firstKey))
    const { address } = Context.get(services, HttpServer.HttpServer)
    const port = address._tag === "TcpAddress" ? address.port : 0
    const host = config.address.host === "" ? "localhost" : config.address.host
    const scheme = config.tls.mode === "plain" ? "http" : "https"
    const page = `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}/`
    const url = `${page.slice(0, -1)}${config.prefix}/v1`
    yield* Effect.annotateLogs(Effect.logInfo("the API is ready"), { url, page })
    return yield* Effect.never
  }).pipe(Effect.scoped)

// internal

type Services = ApiKey.ApiKey | HttpServer.HttpServer | Master.Master

/** Opens the store, builds `first`, and only then listens and starts the instances. */
const layerAfter = <E>(
  options: Options,
  first: Layer.Layer<never, E, Crypto | InstanceStore>
): Layer.Layer<Services, E | OpenError, Environment> => {
  const { config, version } = options
  const services = Layer.provideMerge(
    Layer.merge(ApiKey.layer, Metrics.layer({ version })),
    Layer.mergeAll(Master.layer({ log: config.log, tls: config.tls }), NodeHostFigures.layer, NodePage.layer)
  )
  const server = Layer.unwrapScoped(Effect.map(httpServer(config), (server) => listen(config, server)))
  return Layer.mergeAll(
    MasterServer.layer(options),
    Layer.scopedDiscard(Effect.flatMap(NodeState.backupFile(config.state), backups))
  ).pipe(
    Layer.provideMerge(services),
    Layer.provideMerge(server),
    Layer.provide(first),
    Layer.provideMerge(NodeState.layer(config.state))
  )
}

/** How long requests may take after the master has stopped. */
const requestGrace = Duration.seconds(1)
const maxConnections = 8192

const httpServer = (
  config: MasterConfig
): Effect.Effect<Http.Server, Certificates.CertificateError, Certificates.Certificates | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const { handshakeTimeout, reloadInterval } = yield* Settings
    const timeout = Duration.toMillis(handshakeTimeout)
    const options = { headersTimeout: timeout, requestTimeout: 3 * timeout, keepAliveTimeout: 60_000 }
    if (config.tls.mode === "plain") return holdEarlyRequests(closeWithGrace(Http.createServer(options)))
    const certificates = yield* Certificates.Certificates
    const server = Https.createServer({ ...options, handshakeTimeout: timeout, minVersion: "TLSv1.2" })
    const use = ({ chain, key }: Certificates.Certificate) =>
      Effect.sync(() => server.setSecureContext({ cert: chain, key: Redacted.value(key), minVersion: "TLSv1.2" }))
    if (config.tls.mode === "self-signed") {
      const certificate = yield* certificates.selfSigned
      yield* Effect.annotateLogs(Effect.logInfo("generated a certificate for the API"), {
        fingerprint: certificate.fingerprint
      })
      yield* use(certificate)
    } else {
      // `current` loads the files again when they change, and each time the server uses the new certificate.
      const used = { ...certificates, load: (files: Certificates.Files) => Effect.tap(certificates.load(files), use) }
      yield* Certificates.current(config.tls, { reloadInterval }).pipe(
        Effect.provideService(Certificates.Certificates, used)
      )
    }
    return holdEarlyRequests(closeWithGrace(server))
  })

/** `close` of a Node server waits for every connection, however long it stays open; this one waits for `requestGrace`. */
const closeWithGrace = <A extends Http.Server>(server: A): A => {
  server.maxConnections = maxConnections
  const close = server.close.bind(server)
  return Object.assign(server, {
    close: (done?: (error?: Error) => void) => {
      close(done)
      server.closeIdleConnections()
      const timer = setTimeout(() => server.closeAllConnections(), Duration.toMillis(requestGrace))
      server.once("close", () => clearTimeout(timer))
      return server
    }
  })
}

/** The server listens a moment before its request handler is attached. Requests in between wait for the handler. */
const holdEarlyRequests = <A extends Http.Server>(server: A): A => {
  const early: Array<readonly [request: Http.IncomingMessage, response: Http.ServerResponse]> = []
  const hold: Http.RequestListener = (request, response) => {
    early.push([request, response])
  }
  const attach = (event: string | symbol) => {
    if (event !== "request") return
    server.off("newListener", attach).off("request", hold)
    // `newListener` is emitted before the listener is added.
    queueMicrotask(() => {
      for (const [request, response] of early) server.emit("request", request, response)
    })
  }
  return server.on("request", hold).on("newListener", attach)
}

const listen = ({ address }: MasterConfig, server: Http.Server) =>
  Layer.mapError(
    NodeHttpServer.layer(() => server, {
      port: address.port,
      ...(address.host === "" ? {} : { host: address.host })
    }),
    ({ cause }) => Errno.fromNode("listen", address, cause)
  )

/** Writes a backup after a minute at most, then every reload interval, and at the end. */
const backups = (file: string) =>
  Effect.gen(function* () {
    const { reloadInterval } = yield* Settings
    const write = Effect.catchAll(NodeBackup.write(file), ({ message }) =>
      Effect.logWarning(`cannot write the backup: ${message}`)
    )
    yield* Effect.addFinalizer(() => write)
    const first = Duration.min(Duration.minutes(1), reloadInterval)
    yield* Effect.forkScoped(Effect.delay(Effect.repeat(write, Schedule.spaced(reloadInterval)), first))
  })
