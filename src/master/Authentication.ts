/**
 * Checks the API key of requests, or the ticket of requests that open a stream.
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { TooMany, Unauthorized } from "./ApiErrors.js"
import { ApiKey, type KeyRefused } from "./ApiKey.js"
import { ClientAddress } from "./ClientAddress.js"
import { KeyCheck } from "./MasterApi.js"
import * as RequestMiddleware from "./RequestMiddleware.js"

/** The check of the groups that require the key. */
export const layer: Layer.Layer<KeyCheck, never, ApiKey | ClientAddress> = Layer.effect(
  KeyCheck,
  Effect.gen(function* () {
    const apiKey = yield* ApiKey
    const { of: addressOf } = yield* ClientAddress
    return KeyCheck.of({
      apiKey: (key) =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          const [path = "", query = ""] = request.url.split("?")
          const ticket = new URLSearchParams(query).get("ticket")
          if (Redacted.value(key) === "" && ticket !== null && opensStream(path)) {
            return { key: yield* apiKey.redeem(ticket, addressOf(request)) }
          }
          yield* apiKey.verify(key, addressOf(request))
          return { key }
        }).pipe(Effect.catchAll(refuse))
    })
  })
)

/** Checks the key of the current request, for endpoints that require it only by configuration. */
export const check: Effect.Effect<
  void,
  TooMany | Unauthorized,
  ApiKey | ClientAddress | HttpServerRequest.HttpServerRequest
> = Effect.gen(function* () {
  const apiKey = yield* ApiKey
  const { of: addressOf } = yield* ClientAddress
  const request = yield* HttpServerRequest.HttpServerRequest
  yield* apiKey.verify(Redacted.make(request.headers["x-api-key"] ?? ""), addressOf(request))
}).pipe(Effect.catchAll((error) => refuse(error)))

// internal

const opensStream = (path: string): boolean => /\/(events|instances\/+[^/]+\/+logs)\/*$/.test(path)

/** Fails with the error of the API. The response to a throttled caller has the header `Retry-After`. */
const refuse = ({
  message: error,
  reason,
  seconds
}: KeyRefused): Effect.Effect<never, TooMany | Unauthorized, HttpServerRequest.HttpServerRequest> =>
  reason === "Throttled"
    ? Effect.zipRight(RequestMiddleware.setHeader("retry-after", String(seconds)), new TooMany({ error }))
    : new Unauthorized({ error })
