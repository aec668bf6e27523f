/**
 * Conditional requests: the header `If-Match` of a request, and the `ETag` of a response.
 *
 * Source: RFC 9110 §8.8.3 and §13.1.1.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { BadRequest, PreconditionFailed } from "./ApiErrors.js"
import type { VersionMismatch } from "./Instance.js"
import * as RequestMiddleware from "./RequestMiddleware.js"

/** Whether what the request changes may have this entity tag. */
export type Condition = (tag: string) => boolean

/** The entity tag of a version: the number in quotes. */
export const tagOf = (version: number): string => `"${version}"`

/** The condition of the request; without the header, every tag will do. Fails when the header is malformed. */
export const conditionOf = ({ headers }: HttpServerRequest.HttpServerRequest): Effect.Effect<Condition, BadRequest> => {
  const header = headers["if-match"]
  return header === undefined
    ? Effect.succeed(() => true)
    : Option.match(parse(header), {
        onSome: Effect.succeed,
        onNone: () =>
          new BadRequest({
            error: `If-Match=${header.slice(0, 100)}: expected *, or versions in quotes with commas between: "3"`
          })
      })
}

/** `*` is met by whatever there is; a list by one of its tags. Weak tags are never met. `None`: the text is malformed. */
export const parse = (header: string): Option.Option<Condition> => {
  if (/^[ \t]*\*[ \t]*$/.test(header)) return Option.some(() => true)
  const tags = new Set<string>()
  let count = 0
  let rest = header
  for (;;) {
    // Empty elements of a list are allowed.
    rest = rest.replace(/^[ \t,]+/, "")
    if (rest === "") return count === 0 ? Option.none() : Option.some((tag) => tags.has(tag))
    const [whole, weak, tag] = /^(W\/)?("[!#-~\u0080-\u00ff]*")[ \t]*(?:,|$)/.exec(rest) ?? []
    if (whole === undefined || tag === undefined) return Option.none()
    if (weak === undefined) tags.add(tag)
    count++
    rest = rest.slice(whole.length)
  }
}

/** Sets the `ETag` of the response. */
export const setTag = (tag: string) => RequestMiddleware.setHeader("etag", tag)

/** The error of the API, whose response has the present `ETag`. */
export const notMet = ({ message, tag }: VersionMismatch) =>
  Effect.zipRight(setTag(tag), new PreconditionFailed({ error: message }))
