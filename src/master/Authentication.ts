/**
 * Checks the API key of requests, or the ticket of requests that open a stream.
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { TooMany, Unauthorized } from "./ApiErrors.js"
import { ApiKey, type KeyRefused } from "./ApiKey.js"
import { KeyCheck } from "./MasterApi.js"

/** The check of the groups that require the key. */
export const layer: Layer.Layer<KeyCheck, never, ApiKey> = Layer.effect(
  KeyCheck,
  Effect.gen(function* () {
    const apiKey = yield* ApiKey
    return KeyCheck.of({
      apiKey: (key) =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          const url = new URL(request.url, "http://master")
          const ticket = url.searchParams.get("ticket")
          if (Redacted.value(key) === "" && ticket !== null && opensStream(url.pathname)) {
            return { key: yield* apiKey.redeem(ticket, addressOf(request)) }
          }
          yield* apiKey.verify(key, addressOf(request))
          return { key }
        }).pipe(Effect.mapError(toApiError))
    })
  })
)

/** Checks the key of the current request, for endpoints that require it only by configuration. */
export const check: Effect.Effect<void, TooMany | Unauthorized, ApiKey | HttpServerRequest.HttpServerRequest> =
  Effect.gen(function* () {
    const apiKey = yield* ApiKey
    const request = yield* HttpServerRequest.HttpServerRequest
    yield* apiKey.verify(Redacted.make(request.headers["x-api-key"] ?? ""), addressOf(request))
  }).pipe(Effect.mapError((error) => toApiError(error)))

// internal

const opensStream = (path: string): boolean => /\/(events|instances\/+[^/]+\/+logs)\/*$/.test(path)

const addressOf = ({ remoteAddress }: HttpServerRequest.HttpServerRequest): string =>
  Option.getOrElse(remoteAddress, () => "")

const toApiError = (error: KeyRefused): TooMany | Unauthorized =>
  error.reason === "Throttled" ? new TooMany({ error: error.message }) : new Unauthorized({ error: error.message })
