/**
 * The endpoints below `/events`.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import { Crypto } from "../transport/Crypto.js"
import { ApiKey } from "./ApiKey.js"
import * as EventStream from "./EventStream.js"
import { keyEntry } from "./Instance.js"
import { Master } from "./Master.js"
import { Caller, type withPrefix } from "./MasterApi.js"
import { Metrics } from "./Metrics.js"

export const layer = (api: ReturnType<typeof withPrefix>) =>
  HttpApiBuilder.group(api, "events", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const apiKey = yield* ApiKey
      const metrics = yield* Metrics
      const crypto = yield* Crypto
      const streams = yield* EventStream.make({
        events: master.events,
        instances: master.list,
        run: Encoding.encodeHex(yield* crypto.randomBytes(4)),
        renewed: apiKey.renewed,
        onCount: metrics.subscribed
      })
      return handlers
        .handleRaw("subscribe", ({ request }) =>
          Effect.gen(function* () {
            const { key } = yield* Caller
            const identity = yield* master.identity
            const lastId = Option.fromNullable(request.headers["last-event-id"])
            return HttpServerResponse.stream(streams.subscribe({ lastId, keyEntry: keyEntry(key, identity) }), {
              contentType: "text/event-stream",
              headers: { "cache-control": "no-cache", "x-accel-buffering": "no" }
            })
          })
        )
        .handle("ticket", () => Effect.flatMap(Caller, ({ key }) => apiKey.issue(key)))
    })
  )
