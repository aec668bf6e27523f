/**
 * /metrics and /health of tunnels without a master, over HTTP. Loaded on demand, for `--metrics`.
 */
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Address from "../../core/Address.js"
import * as Prometheus from "../../core/Prometheus.js"
import type { TransportError } from "../../transport/Transport.js"
import type { Status } from "../../tunnel/Checkpoint.js"
import * as Tunnel from "../../tunnel/Tunnel.js"
import * as Errno from "../socket/Errno.js"
import * as ProcessFigures from "./ProcessFigures.js"

export interface Options {
  readonly address: Address.Address
  readonly version: string
}

export interface MetricsServer {
  /** Where it listens; the port is the true one when `0` was asked for. */
  readonly address: Address.Address
  /** Names the tunnels whose health and metrics are served from now on. Before that, /health has `starting`. */
  readonly watch: (tunnels: ReadonlyArray<Tunnel.Tunnel["Type"]>) => void
}

/** Serves until the scope closes. Fails when it cannot listen at the address. */
export const open = ({ address, version }: Options): Effect.Effect<MetricsServer, TransportError, Scope.Scope> =>
  Effect.gen(function* () {
    const node = Http.createServer({ headersTimeout: 5000, requestTimeout: 5000 })
    node.maxConnections = 64
    const { host, port } = address
    const services = yield* Layer.build(
      NodeHttpServer.layer(() => node, { port, ...(host === "" ? {} : { host }) })
    ).pipe(Effect.mapError(({ cause }) => Errno.fromNode("listen", address, cause)))
    // Node would wait for the requests that are open.
    yield* Effect.addFinalizer(() => Effect.sync(() => node.closeAllConnections()))
    const bound = Context.get(services, HttpServer.HttpServer).address
    const own = Address.make(host, bound._tag === "TcpAddress" ? bound.port : port)

    let tunnels: ReadonlyArray<Tunnel.Tunnel["Type"]> = []
    const router = HttpRouter.empty.pipe(
      HttpRouter.get(
        "/metrics",
        Effect.suspend(() => metrics(tunnels, version))
      ),
      HttpRouter.get(
        "/health",
        Effect.suspend(() => health(tunnels))
      ),
      Effect.catchTag("RouteNotFound", () =>
        HttpServerResponse.text("this is not there; /metrics and /health are\n", { status: 404 })
      )
    )
    yield* HttpServer.serveEffect(router).pipe(
      // Scrapes and probes would be most of the traces.
      HttpMiddleware.withTracerDisabledWhenEffect(() => true),
      Effect.provide(services)
    )
    yield* Effect.annotateLogs(Effect.logInfo("serving /metrics and /health"), { address: String(own) })
    return { address: own, watch: (next) => (tunnels = next) }
  })

/** The tunnel, with its metrics and health served from before it opens until after it has stopped. */
export const layer = <E, R>(
  options: Options,
  tunnel: Layer.Layer<Tunnel.Tunnel, E, R>
): Layer.Layer<Tunnel.Tunnel, E | TransportError, R> =>
  Layer.unwrapScoped(
    Effect.map(open(options), ({ watch }) =>
      Layer.tap(tunnel, (services) => Effect.sync(() => watch([Context.get(services, Tunnel.Tunnel)])))
    )
  )

// internal

/** Reading a checkpoint publishes the tunnel's metrics. */
const metrics = (tunnels: ReadonlyArray<Tunnel.Tunnel["Type"]>, version: string) =>
  Effect.gen(function* () {
    yield* Effect.forEach(tunnels, ({ checkpoint }) => checkpoint, { discard: true })
    yield* ProcessFigures.publish(version)
    return HttpServerResponse.text(yield* Prometheus.snapshot, { contentType: Prometheus.contentType })
  })

/** 200 while every tunnel serves; else 503, with the reason of the first that does not. */
const health = (tunnels: ReadonlyArray<Tunnel.Tunnel["Type"]>) =>
  Effect.gen(function* () {
    if (tunnels.length === 0) return answer("starting", "the tunnel is not open yet")
    for (const { checkpoint } of tunnels) {
      const { reason, status } = yield* checkpoint
      if (status !== "serving") return answer(status, reason)
    }
    return answer("serving", "visitors are served")
  })

const answer = (status: Status | "starting", reason: string) =>
  HttpServerResponse.unsafeJson({ status, reason }, { status: status === "serving" ? 200 : 503 })
