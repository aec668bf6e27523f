/**
 * The demo: a web page, a server and a client in one process, and the tunnel between them in use.
 */
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Http from "node:http"
import * as Address from "../../core/Address.js"
import type * as Runner from "../../tunnel/Runner.js"
import { TransportError } from "../../transport/Transport.js"
import * as KeyText from "../../tunnel/KeyText.js"
import * as Tunnel from "../../tunnel/Tunnel.js"
import * as TunnelUrl from "../../url/TunnelUrl.js"

export interface Options {
  readonly version: string
  /** Where /metrics and /health are served, if anywhere. */
  readonly metrics: Option.Option<Address.Address>
  readonly write: (text: string) => Effect.Effect<void>
  /** Whether `write` goes to a terminal, where a line can be overwritten. */
  readonly isTerminal: boolean
}

/** Opens the tunnel, fetches the page through it, prints how to go on, then the tunnel's status until it is interrupted. */
export const run = (options: Options): Effect.Effect<void, Runner.OpenError, Tunnel.Environment> =>
  Effect.gen(function* () {
    const { isTerminal, version, write } = options
    const metrics = yield* Effect.transposeOption(
      Option.map(options.metrics, (address) =>
        Effect.flatMap(
          Effect.promise(() => import("./MetricsServer.js")),
          (MetricsServer) => MetricsServer.open({ address, version })
        )
      )
    )
    const key = Redacted.value(yield* KeyText.generate)
    const { client, page, server } = yield* openTunnel(key)
    if (Option.isSome(metrics)) metrics.value.watch([server, client])
    yield* Effect.zipRight(client.ready, server.ready)

    const { visitors } = yield* server.addresses
    const url = `http://${String(Option.getOrElse(visitors, () => loopback(0)))}/`
    // The first request also warms up the JavaScript engine.
    yield* fetchPage(url)
    const { millis, status } = yield* fetchPage(url)
    yield* write(
      introduction({ key, page, url, status, millis, metrics: Option.map(metrics, ({ address }) => address) })
    )

    const show = Effect.flatMap(server.checkpoint, ({ summary }) =>
      write(isTerminal ? `\r\u001b[2K  ${summary}` : `${summary}\n`)
    )
    const interval = isTerminal ? Duration.millis(500) : Duration.seconds(5)
    // Ends the line of the status.
    const end = isTerminal ? write("\n") : Effect.void
    yield* Effect.onInterrupt(Effect.repeat(show, Schedule.spaced(interval)), () => end)
  }).pipe(
    Effect.scoped,
    Effect.onInterrupt(() => options.write("  stopped: all sockets are closed\n")),
    Logger.withMinimumLogLevel(LogLevel.Warning)
  )

// internal

const loopback = (port: number) => Address.make("127.0.0.1", port)

/** The target, and the two sides of the tunnel to it. Visitors use port 8080, or a free port if 8080 is in use. */
const openTunnel = (key: string) =>
  Effect.gen(function* () {
    const page = yield* servePage
    const config = yield* TunnelUrl.parse(`server://${key}@127.0.0.1:10101/127.0.0.1:8080?log=warn&mode=1`)
    const server = yield* openWithFallback({ ...config, tunnel: loopback(0) })
    const { tunnel } = yield* server.addresses
    const client = yield* open({
      ...(yield* TunnelUrl.parse(`client://${key}@127.0.0.1:10101/127.0.0.1:8080?log=warn&mode=2&min=8`)),
      tunnel: Option.getOrElse(tunnel, () => loopback(0)),
      targets: [page]
    })
    return { page, server, client }
  })

const open = (config: TunnelUrl.TunnelConfig) =>
  Effect.map(Layer.build(Tunnel.layer(config)), (services) => Context.get(services, Tunnel.Tunnel))

const openWithFallback = (config: TunnelUrl.TunnelConfig) =>
  Effect.catchIf(
    open(config),
    (error) => error._tag === "TransportError" && error.reason === "AddressInUse",
    () => open({ ...config, targets: [loopback(0)] })
  )

/** The target: a page on a free port, which shows the address that the request was for. */
const servePage = Effect.gen(function* () {
  let count = 0
  const page = Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    HttpServerResponse.text(
      `You reached the demo target through the tunnel.\n\nRequest ${++count}, for ${headers["host"] ?? "an unknown host"}.\n`
    )
  )
  const services = yield* Layer.build(
    NodeHttpServer.layer(() => Http.createServer(), { port: 0, host: "127.0.0.1" })
  ).pipe(
    Effect.mapError(
      (cause) => new TransportError({ operation: "listen", reason: "Unknown", address: loopback(0), cause })
    )
  )
  const server = Context.get(services, HttpServer.HttpServer)
  yield* Effect.provide(HttpServer.serveEffect(page), services)
  return loopback(server.address._tag === "TcpAddress" ? server.address.port : 0)
})

const fetchPage = (url: string) =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, headers: { connection: "close" } })
      await response.text()
      return response.status
    },
    catch: (cause) => new TransportError({ operation: "read", reason: "Unknown", address: loopback(0), cause })
  }).pipe(
    Effect.timed,
    Effect.map(([took, status]) => ({ status, millis: Duration.toMillis(took) }))
  )

interface Facts {
  readonly key: string
  readonly page: Address.Address
  readonly url: string
  readonly status: number
  readonly millis: number
  readonly metrics: Option.Option<Address.Address>
}

const introduction = ({ key, metrics, millis, page, status, url }: Facts): string => `
nodepass-effect: a tunnel on this machine

  browser ──▶ ${url} ──▶ server ══ pool of connections ══ client ──▶ demo page on ${String(page)}

  Open it:    ${url}
  Test:       fetched it through the tunnel: status ${status} in ${millis.toFixed(0)} ms
${Option.match(metrics, {
  onNone: () => "",
  onSome: (address) => `  Metrics:    http://${String(address)}/metrics and /health\n`
})}
  To reach port 3000 of a machine behind NAT, run (with this key, which was generated for you):

    on a public machine        node bin/nodepass.js "server://${key}@:10101/:8080?mode=1"
    on the one behind NAT      node bin/nodepass.js "client://${key}@PUBLIC-HOST:10101/127.0.0.1:3000?mode=2"

  More:       node bin/nodepass.js --help, README.md, docs/
  Stop:       Ctrl-C

`
