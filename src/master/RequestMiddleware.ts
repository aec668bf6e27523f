/**
 * What applies to every request of the master's HTTP server: the size limit of bodies, errors as JSON, counts.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiError from "@effect/platform/HttpApiError"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { NotReady } from "./ApiErrors.js"
import { tagNameRule } from "./Instance.js"
import type { withPrefix } from "./MasterApi.js"
import { Metrics } from "./Metrics.js"

/** The paths of the API and the page. */
export interface Paths {
  /** The base path of the API, e.g. `/api/v1`. */
  readonly base: string
  /** The methods that the path supports; empty for an unknown path. */
  readonly methods: (path: string) => ReadonlyArray<string>
  /** The name of a request's span: its method and route, e.g. `GET /api/v1/instances/:id`. */
  readonly spanName: (request: HttpServerRequest.HttpServerRequest) => string
}

/** `pages` are the paths of the page, which support GET only. */
export const paths = (api: ReturnType<typeof withPrefix>, pages: ReadonlyArray<string>): Paths => {
  const rows = [...pages, ...rootPaths].map((path) => ({ method: "GET", path, pattern: patternOf(path) }))
  let base = ""
  HttpApi.reflect(api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint: { method, path } }) => {
      if (path.endsWith("/health")) base = path.slice(0, -"/health".length)
      rows.push({ method, path, pattern: patternOf(path) })
    }
  })
  return {
    base,
    methods: (path) => {
      const text = normalized(path)
      return rows.filter(({ pattern }) => pattern.test(text)).map(({ method }) => method)
    },
    spanName: ({ method, url }) => {
      const [path = ""] = url.split("?")
      const text = normalized(path)
      const row = rows.find((row) => row.method === method && row.pattern.test(text))
      // Without the path of an unknown route, which would make a name for each path.
      return row === undefined ? method : `${method} ${row.path}`
    }
  }
}

/** Sets a header of the response to the current request, also when the request fails. */
export const setHeader = (
  name: string,
  value: string
): Effect.Effect<void, never, HttpServerRequest.HttpServerRequest> =>
  HttpApp.appendPreResponseHandler((_, response) => Effect.succeed(HttpServerResponse.setHeader(response, name, value)))

export const make =
  ({ base, methods }: Paths) =>
  (app: HttpApp.Default): HttpApp.Default<never, Metrics> =>
    Effect.gen(function* () {
      const { answered } = yield* Metrics
      const received = yield* HttpServerRequest.HttpServerRequest
      const target = pathOf(received.url)
      if (Option.isNone(target)) {
        answered(received.method, 400)
        return failure(400, `request target ${received.url.slice(0, 200)}: expected a path`)
      }
      const [path = ""] = target.value.split("?")
      const request = received.modify({
        url: rootPaths.has(normalized(path)) ? `${base}${target.value}` : target.value
      })
      const response = yield* Effect.flatMap(
        readBody(request),
        Either.match({
          onLeft: Effect.succeed,
          onRight: (complete) => Effect.provideService(app, HttpServerRequest.HttpServerRequest, complete)
        })
      ).pipe(Effect.catchAllCause((cause) => errorResponse(cause, request, methods)))
      answered(request.method, response.status)
      return response
    })

// internal

/**
 * The path and query of a request target. A proxy sends a whole URL: its scheme and host are ignored. `None` for other
 * targets, and for those that are not a URL reference, such as `//`.
 *
 * Source: RFC 9112 §3.2.
 */
const pathOf = (target: string): Option.Option<string> => {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, "")
  const isPath = path.startsWith("/") || (path !== target && /^(\?|$)/.test(path))
  if (!isPath || !URL.canParse(target, "http://master")) return Option.none()
  return Option.some(path.startsWith("/") ? path : `/${path}`)
}

const patternOf = (path: string): RegExp =>
  new RegExp(`^${path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll(/:\w+/g, "[^/]+")}$`)

/** Paths that are also served at the root, where probes and Prometheus look for them. */
const rootPaths: ReadonlySet<string> = new Set(["/health", "/metrics"])

/** The path as the router matches it: without repeated and trailing slashes. */
const normalized = (path: string): string => path.replaceAll(/\/{2,}/g, "/").replace(/(.)\/$/, "$1")

const maxBodyBytes = 65_536
/** So much of a body that is too large is read and discarded: a client reads the response only after it has sent all. */
const maxDiscardedBytes = 1024 * maxBodyBytes

const failure = (status: number, error: string, headers: Readonly<Record<string, string>> = {}) =>
  HttpServerResponse.unsafeJson({ error }, { status, headers })

const bodyTooLarge = (bytes: string) =>
  failure(400, `body of ${bytes} bytes: expected at most ${maxBodyBytes}`, { connection: "close" })

/** The request with its body read, as JSON whatever its content type. `Left` is the response to a body that is too large. */
const readBody = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<
  Either.Either<HttpServerRequest.HttpServerRequest, HttpServerResponse.HttpServerResponse>,
  HttpServerError.RequestError
> =>
  Effect.gen(function* () {
    if (!["POST", "PATCH", "PUT"].includes(request.method)) return Either.right(request)
    const contentLength = request.headers["content-length"] ?? ""
    if (Number(contentLength) > maxBodyBytes) return Either.left(bodyTooLarge(contentLength))
    const parts: Array<Uint8Array> = []
    let bytes = 0
    yield* Stream.runForEachWhile(request.stream, (part) => {
      bytes += part.length
      if (bytes <= maxBodyBytes) parts.push(part)
      return Effect.succeed(bytes <= maxDiscardedBytes)
    })
    if (bytes > maxBodyBytes) return Either.left(bodyTooLarge(`more than ${maxBodyBytes}`))
    const web = new Request("http://master/", {
      method: request.method,
      headers: { ...request.headers, "content-type": "application/json" },
      ...(bytes > 0 ? { body: new Blob(parts) } : {})
    })
    const address = Option.match(request.remoteAddress, {
      onNone: () => ({}),
      onSome: (remoteAddress) => ({ remoteAddress })
    })
    // The URL is the one received: a `Request` would resolve `..`, and reads `//name` as a host.
    return Either.right(HttpServerRequest.fromWeb(web).modify({ url: request.url, ...address }))
  })

const isServerError = (error: unknown): error is HttpServerError.HttpServerError => HttpServerError.isServerError(error)

/** The response to a request that failed. Dies with errors that the API declares: @effect/platform encodes those. */
const errorResponse = (
  cause: Cause.Cause<unknown>,
  request: HttpServerRequest.HttpServerRequest,
  methods: Paths["methods"]
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
  const error = Cause.squash(cause)
  const [path = ""] = request.url.split("?")
  if (isServerError(error) && error._tag === "RouteNotFound") {
    const allowed = methods(path)
    // The router rejects path parameters longer than 100 characters, so the path may be known here: then it is 404.
    return Effect.succeed(
      allowed.length > 0 && !allowed.includes(request.method)
        ? failure(405, `method ${request.method}: expected one of ${allowed.join(", ")}`, { allow: allowed.join(", ") })
        : failure(404, `path ${path.slice(0, 200)}: not found`)
    )
  }
  if (error instanceof HttpApiError.HttpApiDecodeError) return Effect.succeed(failure(400, sentenceOf(error)))
  if (isServerError(error) && error._tag === "RequestError") {
    return Effect.succeed(failure(400, "body: expected JSON, an object with the fields of the request"))
  }
  if (isDeclared(error)) return Effect.die(error)
  return Effect.as(
    Effect.logError(`${request.method} ${path.slice(0, 200)} failed with an internal error`, cause),
    failure(500, "internal error: see the log of the master")
  )
}

/** Whether the API has a schema for the error. */
const isDeclared = (error: unknown): boolean => Predicate.hasProperty(error, "error") || error instanceof NotReady

const sentenceOf = ({ issues }: HttpApiError.HttpApiDecodeError): string => {
  const [issue] = issues
  if (issue === undefined) return "body: expected the fields of the request"
  const where = issue.path.length === 0 ? "body" : issue.path.map(String).join(".")
  const what =
    issue._tag === "Missing"
      ? "is missing"
      : issue._tag === "Unexpected"
        ? issue.path.at(-2) === "tags"
          ? tagNameRule
          : "unknown field"
        : issue.path.length === 0
          ? "expected an object with the fields of the request"
          : // Every schema but those of objects has a message of its own.
            issue.message.replaceAll(/\s+/g, " ").replace(/^Expected .*/, "expected an object")
  const sentence = `${where.slice(0, 100)}: ${what}`
  return sentence.length > 300 ? `${sentence.slice(0, 300)}…` : sentence
}
