/**
 * Serves the master's page, at the base path of the API, and the page that documents the API.
 *
 * The files are built from `src/page`.
 */
import { Router } from "@effect/platform/HttpApiBuilder"
import type { PathInput } from "@effect/platform/HttpRouter"
import { RouteNotFound } from "@effect/platform/HttpServerError"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** A file of the page. */
export interface File {
  readonly body: Uint8Array
  /** The body, compressed. */
  readonly gzip: Uint8Array
  /** The content type. */
  readonly type: string
  /** Changes with the body. */
  readonly etag: string
}

/** The files by name: `index.html`, `docs.html`, and the files that these load. */
export class Page extends Context.Tag("nodepass/Page")<Page, ReadonlyMap<string, File>>() {}

/** No page: the master serves only the API. */
export const layerNone: Layer.Layer<Page> = Layer.succeed(Page, new Map())

/** The file as a response. Fails with `RouteNotFound` when there is no such file. */
export const respond = (
  name: string
): Effect.Effect<HttpServerResponse.HttpServerResponse, RouteNotFound, HttpServerRequest | Page> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest
    const file = (yield* Page).get(name)
    if (file === undefined) return yield* new RouteNotFound({ request })
    const allHeaders = { ...headers, etag: file.etag }
    if (request.headers["if-none-match"] === file.etag)
      return HttpServerResponse.empty({ status: 304, headers: allHeaders })
    return /\bgzip\b/.test(request.headers["accept-encoding"] ?? "")
      ? HttpServerResponse.uint8Array(file.gzip, {
          contentType: file.type,
          headers: { ...allHeaders, "content-encoding": "gzip" }
        })
      : HttpServerResponse.uint8Array(file.body, { contentType: file.type, headers: allHeaders })
  })

/** The paths of the page as router patterns. `base` is the base path of the API; the paths above it redirect to it. */
export const paths = (base: string): ReadonlyArray<PathInput> => {
  const inside = base.replace(/^\//, "")
  const [parent = "/"] = /^.*(?=\/)/.exec(inside) ?? []
  return ["/", ...(parent === "/" ? [] : [`/${parent}` as const]), `/${inside}`, `/${inside}/page/:name`]
}

/** Serves the page at its paths. */
export const routes = (base: string): Layer.Layer<never, never, Page> =>
  Router.use((router) =>
    Effect.flatMap(Page, (page) =>
      Effect.forEach(paths(base), (path) => router.get(path, Effect.provideService(handle(base), Page, page)), {
        discard: true
      })
    )
  )

// internal

/** The page loads from and sends to its own origin only, and no other page may embed it. */
const headers = {
  "cache-control": "no-cache",
  "content-security-policy": [
    "default-src 'none'",
    ...["script-src", "style-src", "img-src", "connect-src"].map((kind) => `${kind} 'self'`),
    ...["base-uri", "form-action", "frame-ancestors"].map((kind) => `${kind} 'none'`)
  ].join("; "),
  "referrer-policy": "no-referrer",
  vary: "accept-encoding",
  "x-content-type-options": "nosniff"
}

const handle = (base: string) =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest
    const [path = ""] = request.url.split("?")
    if (path.startsWith(`${base}/page/`)) return yield* respond(path.slice(`${base}/page/`.length))
    if (path === `${base}/`) return yield* respond("index.html")
    // Relative where possible: a proxy may serve the page below a path of its own.
    const folder = path.slice(0, path.lastIndexOf("/") + 1)
    const home = `${base}/`
    const location = home.startsWith(folder) ? home.slice(folder.length) : home
    return HttpServerResponse.empty({ status: 307, headers: { location } })
  })
