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
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Http from "node:http"
import * as Address from "../Address.js"
import type { Checkpoint } from "../Checkpoint.js"
import { Crypto } from "../Crypto.js"
import type { Settings } from "../Settings.js"
import { type Transport, TransportError } from "../Transport.js"
import * as Tunnel from "../Tunnel.js"
import * as TunnelUrl from "../TunnelUrl.js"

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
const serve = (config: TunnelUrl.ServerConfig) =>
  Effect.catchIf(
    open({ ...config, target: loopback(8080) }),
    ({ reason }) => reason === "AddressInUse",
    () => open({ ...config, target: loopback(0) })
  )

const fetchOnce = (url: string) =>
  Effect.timed(
    Effect.tryPromise({
      try: async (signal) => {
        const response = await fetch(url, { signal, headers: { connection: "close" } })
        await response.text()
        return response.status
      },
      catch: (cause) => new TransportError({ operation: "connect", reason: "Unknown", address: loopback(0), cause })
    })
  )
