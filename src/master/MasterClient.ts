/**
 * A client of the master's API: its endpoints as typed calls, its streams as `Stream`s.
 */
import * as Sse from "@effect/experimental/Sse"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Event } from "./Instance.js"
import { MasterApi } from "./MasterApi.js"

export interface Options {
  /** The base URL of the API, e.g. `http://127.0.0.1:9090/api/v1`. */
  readonly url: string
  readonly key: Redacted.Redacted
  /** Sent as `If-Match` with every change: the master refuses it when the version of the instance is another. */
  readonly expectedVersion?: number | undefined
}

export type StreamError = HttpClientError.HttpClientError | ParseResult.ParseError

/** Endpoints are called by group and name: `client.instances.list()`. Errors are those of `ApiErrors`. */
export const make = ({ expectedVersion, key, url }: Options) =>
  Effect.gen(function* () {
    const withKey = HttpClient.mapRequest((request: HttpClientRequest.HttpClientRequest) => {
      const keyed = HttpClientRequest.setHeader(request, "x-api-key", Redacted.value(key))
      return expectedVersion === undefined || request.method === "GET"
        ? keyed
        : HttpClientRequest.setHeader(keyed, "if-match", `"${expectedVersion}"`)
    })
    const base = url.replace(/\/+$/, "")
    const calls = yield* HttpApiClient.make(MasterApi, { baseUrl: base, transformClient: withKey })
    const http = HttpClient.filterStatusOk(withKey(yield* HttpClient.HttpClient))
    return {
      ...calls,
      /** The events from now on. Ends when the master stops. */
      events: HttpClientResponse.stream(http.get(`${base}/events`)).pipe(
        Stream.decodeText(),
        Stream.pipeThroughChannel(Sse.makeChannel()),
        Stream.filter(({ event }) => event === "instance"),
        Stream.mapEffect(({ data }) => decodeEvent(data))
      ) satisfies Stream.Stream<Event, StreamError>,
      /** The last lines of an instance's log, then new lines as they are logged. */
      follow: (id: string): Stream.Stream<string, StreamError> =>
        HttpClientResponse.stream(http.get(`${base}/instances/${encodeURIComponent(id)}/logs?follow=true`)).pipe(
          Stream.decodeText(),
          Stream.splitLines
        )
    }
  })

export class MasterClient extends Context.Tag("nodepass/MasterClient")<
  MasterClient,
  Effect.Effect.Success<ReturnType<typeof make>>
>() {}

/** Uses the `HttpClient` of the host. Choose `NodeHttpClient.layerUndici`: it ends streams cleanly. */
export const layer = (options: Options): Layer.Layer<MasterClient, never, HttpClient.HttpClient> =>
  Layer.effect(MasterClient, make(options))

// internal

const decodeEvent = Schema.decode(Schema.parseJson(Event))
