/**
 * The demonstration: a web page, a server and a client in one process, and the tunnel between them at work.
 */
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Http from "node:http"
import * as Address from "../../core/Address.js"
import { Crypto } from "../../transport/Crypto.js"
import type * as Runner from "../../tunnel/Runner.js"
import { TransportError } from "../../transport/Transport.js"
import * as Tunnel from "../../tunnel/Tunnel.js"
import * as TunnelUrl from "../../url/TunnelUrl.js"

const loopback = (port: number) => Address.make("127.0.0.1", port)

/** A page that says how it was reached, on a free port. */
const target = Effect.gen(function* () {
  let visits = 0
  const page = Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    HttpServerResponse.text(
      `You reached the demo target through the tunnel.\n\nvisit ${++visits}, asked for as ${headers["host"] ?? "?"}\n`
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

const open = (config: TunnelUrl.TunnelConfig) =>
  Effect.map(Layer.build(Tunnel.layer(config)), (services) => Context.get(services, Tunnel.Tunnel))

/** Where visitors come to: a port that people remember, or a free one where that is taken. */
const serve = (config: TunnelUrl.TunnelConfig) =>
  Effect.catchIf(
    open(config),
    (error) => error._tag === "TransportError" && error.reason === "AddressInUse",
    () => open({ ...config, targets: [loopback(0)] })
  )

/** Fetches through the tunnel: milliseconds it took. */
const fetchThrough = (url: string) =>
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

export interface Terminal {
  readonly write: (text: string) => Effect.Effect<void>
  /** Whether lines can be drawn over. */
  readonly redraws: boolean
}

/** Runs until it is interrupted. */
export const run = (terminal: Terminal): Effect.Effect<void, Runner.OpenError, Tunnel.Environment> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const key = Encoding.encodeHex(yield* crypto.randomBytes(16))
    const page = yield* target
    const config = yield* TunnelUrl.parse(`server://${key}@127.0.0.1:10101/127.0.0.1:8080?log=warn&mode=1`)
    const server = yield* serve({ ...config, tunnel: loopback(0) })
    const { tunnel, visitors } = yield* server.addresses
    const client = yield* open({
      ...(yield* TunnelUrl.parse(`client://${key}@127.0.0.1:10101/127.0.0.1:8080?log=warn&mode=2&min=8`)),
      tunnel: Option.getOrElse(tunnel, () => loopback(0)),
      targets: [page]
    })
    yield* Effect.zipRight(client.ready, server.ready)

    const url = `http://${String(Option.getOrElse(visitors, () => loopback(0)))}/`
    yield* fetchThrough(url)
    const { millis, status } = yield* fetchThrough(url)
    yield* terminal.write(`
nodepass-effect: a live tunnel on this machine

  you ──▶ ${url} ──▶ server ══ warm pool ══ client ──▶ demo page on ${String(page)}

  Open it:    ${url}
  Fetched it: status ${status} in ${millis.toFixed(0)} ms

  On two machines, to reach port 3000 of a machine behind NAT (this key was drawn for you now):

    on the public one      node bin/nodepass.js "server://${key}@:10101/:8080"
    on the one behind NAT  node bin/nodepass.js "client://${key}@PUBLIC-HOST:10101/127.0.0.1:3000"

  Next:       node bin/nodepass.js --help, README.md, docs/
  Stop:       Ctrl-C

`)
    const show = Effect.flatMap(server.checkpoint, (checkpoint) =>
      terminal.write(terminal.redraws ? `\r\u001b[2K  ${checkpoint.summary}` : `${checkpoint.summary}\n`)
    )
    const every = terminal.redraws ? Duration.millis(500) : Duration.seconds(5)
    yield* Effect.repeat(show, Schedule.spaced(every)).pipe(
      Effect.onInterrupt(() => terminal.write(`${terminal.redraws ? "\n" : ""}  stopped: every socket is closed\n`))
    )
  }).pipe(Effect.scoped, Logger.withMinimumLogLevel(LogLevel.Warning))
