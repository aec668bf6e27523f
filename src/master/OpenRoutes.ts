/**
 * The endpoints that need no API key: health, metrics where the configuration allows it, and the API's documentation.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { MasterConfig } from "../url/MasterUrl.js"
import { NotReady } from "./ApiErrors.js"
import type { ApiKey } from "./ApiKey.js"
import * as Authentication from "./Authentication.js"
import type { ClientAddress } from "./ClientAddress.js"
import { Master } from "./Master.js"
import type { withPrefix } from "./MasterApi.js"
import * as Metrics from "./Metrics.js"
import * as Page from "./Page.js"

export const layer = (api: ReturnType<typeof withPrefix>, { metrics: access }: Pick<MasterConfig, "metrics">) =>
  HttpApiBuilder.group(api, "open", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const services = yield* Effect.context<ApiKey | ClientAddress>()
      const metrics = yield* Metrics.Metrics
      const document: unknown = OpenApi.fromApi(api)
      const text = JSON.stringify(document)
      const check = access === "open" ? Effect.void : Effect.provide(Authentication.check, services)
      const health = Effect.gen(function* () {
        const problems = [...Option.toArray(yield* master.storeProblem), ...(yield* master.problems)]
        const ok = problems.length === 0
        return {
          live: { ok: true, reasons: ["the API answers requests"] },
          ready: { ok, reasons: ok ? ["all instances that should run do, and the store works"] : problems }
        }
      })
      return (
        handlers
          .handle("health", () =>
            Effect.flatMap(health, (health) =>
              health.ready.ok ? Effect.succeed(health) : Effect.fail(new NotReady(health))
            )
          )
          .handle("metrics", () => Effect.zipRight(check, metrics.text))
          .handleRaw("openapi", () =>
            Effect.succeed(HttpServerResponse.text(text, { contentType: "application/json" }))
          )
          // Fails with `RouteNotFound` where the host has no page; the middleware answers it with 404.
          .handleRaw("docs", () => Effect.orDie(Page.respond("docs.html")))
      )
    })
  )
