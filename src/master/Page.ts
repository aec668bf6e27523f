/**
 * What a browser is shown of the master: its page, at the base path of the API, and the page about the API.
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

/** A file as it is sent. */
export interface File {
  readonly body: Uint8Array
  /** The same, compressed. */
  readonly gzip: Uint8Array
  /** Its content type. */
  readonly type: string
  /** Changes with the body. */
  readonly etag: string
}

/** The files by name: `index.html`, `docs.html`, and what these load. */
export class Page extends Context.Tag("nodepass/Page")<Page, ReadonlyMap<string, File>>() {}

/** No page: the API alone. */
export const layerNone: Layer.Layer<Page> = Layer.succeed(Page, new Map())

/** The file as an answer. Fails where there is no such file. */
export const answer = (
  name: string
): Effect.Effect<HttpServerResponse.HttpServerResponse, RouteNotFound, HttpServerRequest | Page> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest
    const file = (yield* Page).get(name)
    if (file === undefined) return yield* new RouteNotFound({ request })
    const sent = { ...headers, etag: file.etag }
    if (request.headers["if-none-match"] === file.etag) return HttpServerResponse.empty({ status: 304, headers: sent })
    return /\bgzip\b/.test(request.headers["accept-encoding"] ?? "")
      ? HttpServerResponse.uint8Array(file.gzip, {
          contentType: file.type,
          headers: { ...sent, "content-encoding": "gzip" }
        })
      : HttpServerResponse.uint8Array(file.body, { contentType: file.type, headers: sent })
  })

/** The paths of the page, as routers write them; `base` is that of the API, and what is above it leads there. */
export const paths = (base: string): ReadonlyArray<PathInput> => {
  const inside = base.replace(/^\//, "")
  const [parent = "/"] = /^.*(?=\/)/.exec(inside) ?? []
  return ["/", ...(parent === "/" ? [] : [`/${parent}` as const]), `/${inside}`, `/${inside}/page/:name`]
}

/** Answers at these paths. */
export const routes = (base: string): Layer.Layer<never, never, Page> =>
  Router.use((router) =>
    Effect.flatMap(Page, (page) =>
      Effect.forEach(paths(base), (path) => router.get(path, Effect.provideService(at(base), Page, page)), {
        discard: true
      })
    )
  )

// internal

/** Said with every file: nothing is loaded from, sent to or framed by anybody else. */
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

const at = (base: string) =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest
    const [path = ""] = request.url.split("?")
    if (path.startsWith(`${base}/page/`)) return yield* answer(path.slice(`${base}/page/`.length))
    if (path === `${base}/`) return yield* answer("index.html")
    // Relative where it can be, since a proxy may have put something in front.
    const folder = path.slice(0, path.lastIndexOf("/") + 1)
    const home = `${base}/`
    const location = home.startsWith(folder) ? home.slice(folder.length) : home
    return HttpServerResponse.empty({ status: 307, headers: { location } })
  })
