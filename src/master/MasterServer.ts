/**
 * The master's API at work: what each endpoint does, over whichever HTTP server the host has.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import type * as HttpRouter from "@effect/platform/HttpRouter"
import type * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Address from "../core/Address.js"
import { ApiKey, type KeyRefused } from "./ApiKey.js"
import { Crypto } from "../transport/Crypto.js"
import * as EventStream from "./EventStream.js"
import { HostFigures } from "./HostFigures.js"
import { type Instance, keyId, noMeta, type NoInstance, noTraffic, type NoVersion, type SameUrl } from "./Instance.js"
import type { StoreError } from "./InstanceStore.js"
import type * as Journal from "./Journal.js"
import { Master } from "./Master.js"
import {
  at,
  BadRequest,
  Caller,
  Conflict,
  Forbidden,
  KeyCheck,
  type MasterInfo,
  NotFound,
  NotReady,
  TooMany,
  Unauthorized,
  Unavailable
} from "./MasterApi.js"
import type { MasterConfig } from "../url/MasterUrl.js"
import * as Metrics from "./Metrics.js"
import * as Page from "./Page.js"
import * as Requests from "./Requests.js"
import { Transport } from "../transport/Transport.js"
import * as TlsMode from "../core/TlsMode.js"
import type { UrlError } from "../url/UrlError.js"

export interface Options {
  readonly config: MasterConfig
  readonly version: string
}

type Environment = ApiKey | Crypto | HostFigures | Master | Metrics.Metrics | Page.Page | Transport

/** Answers requests of the host's HTTP server until the scope closes, which ends streams first. */
export const layer = (
  options: Options
): Layer.Layer<never, never, Environment | HttpRouter.HttpRouter.DefaultServices | HttpServer.HttpServer> => {
  const api = at(options.config.prefix)
  const base = `${options.config.prefix}/v1`
  const paths = Requests.table(api, Page.paths(base))
  return HttpApiBuilder.serve().pipe(
    Layer.provide(
      HttpApiBuilder.middlewareCors({
        allowedOrigins: ["*"],
        allowedMethods: ["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"],
        allowedHeaders: ["Content-Type", "Authorization", "X-API-Key", "Cache-Control", "Last-Event-ID"],
        exposedHeaders: ["X-NodePass-Note"]
      })
    ),
    Layer.provide(HttpApiBuilder.middleware(Requests.middleware(paths), { withContext: true })),
    Layer.provide(HttpApiBuilder.api(api)),
    Layer.provide([instances(api), events(api), system(api, options), open(api, options), Page.routes(base)]),
    Layer.provide(keyCheck)
  )
}

// internal

type Api = ReturnType<typeof at>

const refusal = (error: KeyRefused): Unauthorized | TooMany =>
  error.reason === "Throttled" ? new TooMany({ error: error.message }) : new Unauthorized({ error: error.message })

const addressOf = ({ remoteAddress }: HttpServerRequest.HttpServerRequest): string =>
  Option.getOrElse(remoteAddress, () => "")

/** Where a ticket does as well as the key. */
const isStream = (path: string): boolean => /\/(events|instances\/+[^/]+\/+logs)\/*$/.test(path)

const keyCheck = Layer.effect(
  KeyCheck,
  Effect.gen(function* () {
    const apiKey = yield* ApiKey
    return KeyCheck.of({
      apiKey: (key) =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          const address = addressOf(request)
          const url = new URL(request.url, "http://master")
          const ticket = url.searchParams.get("ticket")
          if (Redacted.value(key) === "" && ticket !== null && isStream(url.pathname)) {
            return { key: yield* apiKey.redeem(ticket, address) }
          }
          yield* apiKey.verify(key, address)
          return { key }
        }).pipe(Effect.mapError(refusal))
    })
  })
)

const missing = ({ message }: NoInstance | NoVersion) => Effect.fail(new NotFound({ error: message }))
const unkept = ({ message }: StoreError) => Effect.fail(new Unavailable({ error: message }))
const unmeant = ({ message }: UrlError) => Effect.fail(new BadRequest({ error: message }))
const conflicting = ({ message }: SameUrl) => Effect.fail(new Conflict({ error: message }))
/** What the master says, as answers. */
const answers = { NoInstance: missing, StoreError: unkept }
const answersToUrl = { ...answers, UrlError: unmeant, SameUrl: conflicting }

/** The entry that stands for the key. */
const keyEntry = (key: Redacted.Redacted, mid: string): Instance => ({
  id: keyId,
  alias: "",
  type: "",
  status: "",
  url: Redacted.value(key),
  config: mid,
  restart: false,
  meta: noMeta,
  mode: 0,
  ping: 0,
  pool: 0,
  tcps: 0,
  udps: 0,
  ...noTraffic,
  error: "",
  version: 1
})

const forbidden = (what: string) => new Forbidden({ error: `id=${keyId}: the API key cannot be ${what}` })

const utf8 = new TextEncoder()

const instances = (api: Api) =>
  HttpApiBuilder.group(api, "instances", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const apiKey = yield* ApiKey
      const own = Effect.gen(function* () {
        const { key } = yield* Caller
        const { mid } = yield* master.identity
        return keyEntry(key, mid)
      })
      const notKey = (id: string, what: string) => (id === keyId ? Effect.fail(forbidden(what)) : Effect.void)
      const change = { uninterruptible: true }
      return handlers
        .handle("list", () => Effect.zipWith(master.list, own, (list, entry) => [...list, entry]))
        .handle(
          "create",
          ({ payload }) => master.create(payload).pipe(Effect.catchTags({ UrlError: unmeant, StoreError: unkept })),
          change
        )
        .handle("get", ({ path: { id } }) => (id === keyId ? own : Effect.catchAll(master.get(id), missing)))
        .handle(
          "patch",
          ({ path: { id }, payload }) =>
            Effect.gen(function* () {
              if (id !== keyId) {
                const { instance, note } = yield* master.patch(id, payload).pipe(Effect.catchTags(answers))
                if (Option.isSome(note)) yield* Requests.noting(note.value)
                return instance
              }
              if (Object.keys(payload).join() !== "action" || payload.action !== "restart") {
                return yield* new BadRequest({ error: "action: expected restart and nothing else for the API key" })
              }
              const key = yield* Effect.catchAll(apiKey.renew, unkept)
              const { mid } = yield* master.identity
              return keyEntry(key, mid)
            }),
          change
        )
        .handle(
          "put",
          ({ path: { id }, payload: { url } }) =>
            Effect.zipRight(notKey(id, "given a URL"), master.replace(id, url).pipe(Effect.catchTags(answersToUrl))),
          change
        )
        .handle(
          "remove",
          ({ path: { id } }) =>
            Effect.zipRight(notKey(id, "deleted"), master.remove(id).pipe(Effect.catchTags(answers))),
          change
        )
        .handle("versions", ({ path: { id } }) => master.versions(id).pipe(Effect.catchTags(answers)))
        .handle(
          "rollback",
          ({ path: { id }, payload: { version } }) =>
            Effect.zipRight(
              notKey(id, "rolled back"),
              master.rollback(id, version).pipe(Effect.catchTags({ ...answersToUrl, NoVersion: missing }))
            ),
          change
        )
        .handleRaw("logs", ({ path: { id }, urlParams: { follow = false, lines = 1000 } }) =>
          Effect.gen(function* () {
            const journal = yield* Effect.catchAll(master.logs(id), missing)
            if (!follow) return yield* text(Stream.make(yield* journal.last(lines)))
            const now = yield* journal.next
            const body = Stream.concat(Stream.make(yield* journal.last(lines)), linesFrom(journal, now))
            return yield* text(Stream.interruptWhen(body, apiKey.renewed))
          })
        )
        .handle("traffic", ({ path: { id }, urlParams: { since = 0, step = 1 } }) =>
          Effect.map(Effect.catchAll(master.traffic(id), missing), (history) => ({
            step,
            points: history.read(since, step)
          }))
        )
    })
  )

const text = (lines: Stream.Stream<ReadonlyArray<string>>) =>
  Effect.succeed(
    HttpServerResponse.stream(
      Stream.map(lines, (lines) => utf8.encode(lines.map((line) => `${line}\n`).join(""))),
      { contentType: "text/plain; charset=utf-8", headers: streamHeaders }
    )
  )

const linesFrom = (journal: Journal.Journal<string>, from: number): Stream.Stream<ReadonlyArray<string>> =>
  Stream.unfoldEffect(from, (from) =>
    Effect.map(
      journal.read(from, 200),
      Option.map(({ entries, first, lost }) => {
        const told = lost > 0 ? [`… ${lost} lines lost: read too slowly`] : []
        return [[...told, ...entries], first + entries.length] as const
      })
    )
  )

const streamHeaders = { "cache-control": "no-cache", "x-accel-buffering": "no" }

const events = (api: Api) =>
  HttpApiBuilder.group(api, "events", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const apiKey = yield* ApiKey
      const metrics = yield* Metrics.Metrics
      const crypto = yield* Crypto
      const streams = yield* EventStream.make({
        events: master.events,
        initial: master.list,
        run: Encoding.encodeHex(yield* crypto.randomBytes(4)),
        renewed: apiKey.renewed,
        subscribed: metrics.subscribed
      })
      return handlers
        .handleRaw("subscribe", ({ request }) =>
          Effect.gen(function* () {
            const { key } = yield* Caller
            const { mid } = yield* master.identity
            const lastId = Option.fromNullable(request.headers["last-event-id"])
            return HttpServerResponse.stream(streams.subscribe({ lastId, own: keyEntry(key, mid) }), {
              contentType: "text/event-stream",
              headers: streamHeaders
            })
          })
        )
        .handle("ticket", () => Effect.flatMap(Caller, ({ key }) => apiKey.issue(key)))
    })
  )

const system = (api: Api, { config, version }: Options) =>
  HttpApiBuilder.group(api, "master", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const host = yield* HostFigures
      const transport = yield* Transport
      const dials = yield* Effect.makeSemaphore(dialsAtOnce)
      const start = yield* Clock.currentTimeMillis
      const info = Effect.gen(function* () {
        const { alias, mid } = yield* master.identity
        const { tls } = config
        return {
          mid,
          alias,
          os: host.os,
          arch: host.arch,
          ...(yield* host.read),
          uptime: Math.floor(((yield* Clock.currentTimeMillis) - start) / 1000),
          ver: version,
          name: host.name,
          log: config.log,
          tls: TlsMode.toDigit(tls.mode),
          crt: tls.mode === "verified" ? tls.crt : "",
          key: tls.mode === "verified" ? tls.key : ""
        } satisfies MasterInfo
      })
      return handlers
        .handle("info", () => info)
        .handle(
          "rename",
          ({ payload: { alias } }) => Effect.zipRight(Effect.catchAll(master.identify({ alias }), unkept), info),
          { uninterruptible: true }
        )
        .handle("tcping", ({ urlParams: { target } }) =>
          Effect.gen(function* () {
            const address = Schema.decodeOption(Address.FromText)(target)
            if (Option.isNone(address) || address.value.port === 0 || address.value.host === "") {
              return yield* new BadRequest({ error: `target=${target.slice(0, 200)}: expected host:port` })
            }
            const dial = transport
              .connect(address.value)
              .pipe(
                Effect.scoped,
                Effect.timeoutFail({ duration: dialPatience, onTimeout: () => slow(dialPatience) }),
                Effect.timed
              )
            const failed = (error: string) => ({ target, connected: false, latency: 0, error })
            // Who finds all taken waits a moment, and is told.
            const place = dials.take(1).pipe(Effect.timeoutOption("1 second"))
            return yield* Effect.acquireUseRelease(
              Effect.interruptible(place),
              Option.match({
                onNone: () => Effect.succeed(failed(`too many at once: at most ${dialsAtOnce}`)),
                onSome: () =>
                  Effect.match(dial, {
                    onFailure: ({ message }) => failed(message),
                    onSuccess: ([took]) => ({
                      target,
                      connected: true,
                      latency: Math.round(Duration.toMillis(took)),
                      error: null
                    })
                  })
              }),
              (place) => (Option.isSome(place) ? dials.release(1) : Effect.void)
            )
          })
        )
    })
  )

const dialsAtOnce = 10
const dialPatience = Duration.seconds(5)
const slow = (patience: Duration.Duration) => ({ message: `no answer within ${Duration.format(patience)}` })

const open = (api: Api, { config }: Options) =>
  HttpApiBuilder.group(api, "open", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const apiKey = yield* ApiKey
      const metrics = yield* Metrics.Metrics
      const document: unknown = OpenApi.fromApi(api)
      const text = JSON.stringify(document)
      const check = Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const given = Redacted.make(request.headers["x-api-key"] ?? "")
        yield* Effect.mapError(apiKey.verify(given, addressOf(request)), refusal)
      })
      return (
        handlers
          .handle("health", () =>
            Effect.gen(function* () {
              const problem = Option.toArray(yield* master.storeProblem)
              const pending = yield* master.pending
              const reasons = [...problem, ...pending]
              const health = {
                live: { ok: true, reasons: ["requests are answered"] },
                ready: {
                  ok: reasons.length === 0,
                  reasons: reasons.length === 0 ? ["all that it keeps is at work"] : reasons
                }
              }
              return health.ready.ok ? health : yield* new NotReady(health)
            })
          )
          .handle("metrics", () =>
            Effect.zipRight(
              config.metrics === "open" ? Effect.void : check,
              Effect.map(metrics.families, Metrics.prometheus)
            )
          )
          .handleRaw("openapi", () =>
            Effect.succeed(HttpServerResponse.text(text, { contentType: "application/json" }))
          )
          // A path that is not there is answered by `Requests`.
          .handleRaw("docs", () => Effect.orDie(Page.answer("docs.html")))
      )
    })
  )
