/**
 * Serves the master's API and its page on the HTTP server of the host.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import type * as HttpRouter from "@effect/platform/HttpRouter"
import type * as HttpServer from "@effect/platform/HttpServer"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Crypto } from "../transport/Crypto.js"
import type { Transport } from "../transport/Transport.js"
import type { MasterConfig } from "../url/MasterUrl.js"
import type { ApiKey } from "./ApiKey.js"
import * as Authentication from "./Authentication.js"
import * as ClientAddress from "./ClientAddress.js"
import * as EventRoutes from "./EventRoutes.js"
import type { HostFigures } from "./HostFigures.js"
import * as InstanceRoutes from "./InstanceRoutes.js"
import type { Master } from "./Master.js"
import { withPrefix } from "./MasterApi.js"
import type { Metrics } from "./Metrics.js"
import * as OpenRoutes from "./OpenRoutes.js"
import * as Page from "./Page.js"
import * as RequestMiddleware from "./RequestMiddleware.js"
import * as SystemRoutes from "./SystemRoutes.js"

export interface Options {
  readonly config: MasterConfig
  readonly version: string
}

type Environment = ApiKey | Crypto | HostFigures | Master | Metrics | Page.Page | Transport

/** Handles the requests of the host's HTTP server until the scope closes, which ends streams first. */
export const layer = (
  options: Options
): Layer.Layer<never, never, Environment | HttpRouter.HttpRouter.DefaultServices | HttpServer.HttpServer> => {
  const { config } = options
  const api = withPrefix(config.prefix)
  const base = `${config.prefix}/v1`
  const paths = RequestMiddleware.paths(api, Page.paths(base))
  return HttpApiBuilder.serve().pipe(
    Layer.provide(
      HttpApiBuilder.middlewareCors({
        allowedOrigins: ["*"],
        allowedMethods: ["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"],
        allowedHeaders: ["Content-Type", "Authorization", "X-API-Key", "Cache-Control", "Last-Event-ID", "If-Match"],
        exposedHeaders: ["X-NodePass-Note", "Retry-After", "ETag"]
      })
    ),
    Layer.provide(HttpApiBuilder.middleware(RequestMiddleware.make(paths), { withContext: true })),
    Layer.provide(HttpApiBuilder.api(api)),
    Layer.provide([
      InstanceRoutes.layer(api),
      EventRoutes.layer(api),
      SystemRoutes.layer(api, options),
      OpenRoutes.layer(api, config),
      Page.routes(base)
    ]),
    Layer.provide(Authentication.layer),
    Layer.provide(ClientAddress.layer({ trusted: Option.getOrElse(config.trustedProxies, () => []) })),
    HttpMiddleware.withSpanNameGenerator(paths.spanName)
  )
}
