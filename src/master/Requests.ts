/**
 * What holds for every request to the master's API: its body is bounded, and whatever is wrong is one sentence as JSON.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiError from "@effect/platform/HttpApiError"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { NotReady } from "./ApiErrors.js"
import type { withPrefix } from "./MasterApi.js"
import { Metrics } from "./Metrics.js"

export interface Table {
  /** Of the API, e.g. `/api/v1`. */
  readonly base: string
  /** Methods that the path has; none for a path that is not there. */
  readonly methods: (path: string) => ReadonlyArray<string>
}

/** The paths of the API and of its pages, which may only be read, and what may be asked of them. */
export const table = (api: ReturnType<typeof withPrefix>, pages: ReadonlyArray<string>): Table => {
  const rows = pages.map((path) => ({ method: "GET", pattern: patternOf(path) }))
  let base = ""
  HttpApi.reflect(api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint: { method, path } }) => {
      if (path.endsWith("/health")) base = path.slice(0, -"/health".length)
      rows.push({ method, pattern: patternOf(path) })
    }
  })
  return {
    base,
    methods: (path) => rows.filter(({ pattern }) => pattern.test(plain(path))).map(({ method }) => method)
  }
}

/** Has the answer say something about itself, in the header `X-NodePass-Note`. */
export const noting = (note: string): Effect.Effect<void, never, HttpServerRequest.HttpServerRequest> =>
  HttpApp.appendPreResponseHandler((_, response) =>
    Effect.succeed(HttpServerResponse.setHeader(response, "x-nodepass-note", note))
  )

export const middleware =
  ({ base, methods }: Table) =>
  (app: HttpApp.Default): HttpApp.Default<never, Metrics> =>
    Effect.gen(function* () {
      const { answered } = yield* Metrics
      const given = yield* HttpServerRequest.HttpServerRequest
      const [path = ""] = given.url.split("?")
      const request = atRoot.has(plain(path)) ? given.modify({ url: `${base}${given.url}` }) : given
      const answer = Effect.flatMap(withBody(request), (whole) =>
        Option.isSome(whole.refusal)
          ? Effect.succeed(whole.refusal.value)
          : Effect.provideService(app, HttpServerRequest.HttpServerRequest, whole.request)
      ).pipe(Effect.catchAllCause((cause) => answerTo(cause, request, methods)))
      const response = yield* answer
      answered(request.method, response.status)
      return response
    })

// internal

const patternOf = (path: string): RegExp =>
  new RegExp(`^${path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll(/:\w+/g, "[^/]+")}$`)

/** Where probes and Prometheus look for them. */
const atRoot: ReadonlySet<string> = new Set(["/health", "/metrics"])

/** As the router takes it: slashes that say nothing are passed over. */
const plain = (path: string): string => path.replaceAll(/\/{2,}/g, "/").replace(/(.)\/$/, "$1")

/** Bytes in a body. */
const most = 65_536
/** Of a body that is too large, so much is read and forgotten: who is sending hears no answer before the end. */
const patience = 1024 * most

const refuse = (status: number, error: string, headers: Readonly<Record<string, string>> = {}) =>
  HttpServerResponse.unsafeJson({ error }, { status, headers })

const tooLarge = (bytes: string) =>
  refuse(400, `body of ${bytes} bytes: expected at most ${most}`, { connection: "close" })

/** The same request with its body read, as JSON whatever it is called. */
const withBody = (request: HttpServerRequest.HttpServerRequest) =>
  Effect.gen(function* () {
    const whole = (next: HttpServerRequest.HttpServerRequest) => ({ request: next, refusal: Option.none() })
    const not = (refusal: HttpServerResponse.HttpServerResponse) => ({ request, refusal: Option.some(refusal) })
    if (!["POST", "PATCH", "PUT"].includes(request.method)) return whole(request)
    const announced = request.headers["content-length"] ?? ""
    if (Number(announced) > most) return not(tooLarge(announced))
    const parts: Array<Uint8Array> = []
    let bytes = 0
    yield* Stream.runForEachWhile(request.stream, (part) => {
      bytes += part.length
      if (bytes <= most) parts.push(part)
      return Effect.succeed(bytes <= patience)
    })
    if (bytes > most) return not(tooLarge(`more than ${most}`))
    const web = new Request(new URL(request.url, "http://master"), {
      method: request.method,
      headers: { ...request.headers, "content-type": "application/json" },
      ...(bytes > 0 ? { body: new Blob(parts) } : {})
    })
    return whole(
      HttpServerRequest.fromWeb(web).modify(
        Option.match(request.remoteAddress, { onNone: () => ({}), onSome: (remoteAddress) => ({ remoteAddress }) })
      )
    )
  })

const isServerError = (error: unknown): error is HttpServerError.HttpServerError => HttpServerError.isServerError(error)

const answerTo = (
  cause: Cause.Cause<unknown>,
  request: HttpServerRequest.HttpServerRequest,
  methods: Table["methods"]
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
  const error = Cause.squash(cause)
  const [path = ""] = request.url.split("?")
  if (isServerError(error) && error._tag === "RouteNotFound") {
    const allowed = methods(path)
    // The router takes no name longer than 100 characters for one.
    return Effect.succeed(
      allowed.length > 0 && !allowed.includes(request.method)
        ? refuse(405, `method ${request.method}: expected one of ${allowed.join(", ")}`, { allow: allowed.join(", ") })
        : refuse(404, `path ${path.slice(0, 200)}: there is none`)
    )
  }
  if (error instanceof HttpApiError.HttpApiDecodeError) return Effect.succeed(refuse(400, sentence(error)))
  if (isServerError(error) && error._tag === "RequestError") {
    return Effect.succeed(refuse(400, "body: expected JSON, an object with the fields of the request"))
  }
  if (isTold(error)) return Effect.die(error)
  return Effect.as(
    Effect.logError("a request ended in a defect", cause),
    refuse(500, "a defect of the master: see its log")
  )
}

/** An error that the API has a schema for. */
const isTold = (error: unknown): boolean => Predicate.hasProperty(error, "error") || error instanceof NotReady

const sentence = ({ issues }: HttpApiError.HttpApiDecodeError): string => {
  const [issue] = issues
  if (issue === undefined) return "body: expected the fields of the request"
  const where = issue.path.length === 0 ? "body" : issue.path.map(String).join(".")
  const what =
    issue._tag === "Missing"
      ? "is missing"
      : issue._tag === "Unexpected"
        ? "is no field of this request"
        : issue.path.length === 0
          ? "expected an object with the fields of the request"
          : // What has no sentence of its own is an object.
            issue.message.replaceAll(/\s+/g, " ").replace(/^Expected .*/, "expected an object")
  const line = `${where.slice(0, 100)}: ${what}`
  return line.length > 300 ? `${line.slice(0, 300)}…` : line
}
