/**
 * The query of a command URL: `a=1&b=2` ⇄ texts by name ⇄ the values of a role's parameters.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Parameter from "./Parameter.js"
import { refuse, refuseName, type UrlError } from "./UrlError.js"

/** The parameters that a URL sets, with their percent-decoded texts. */
export type Texts = Readonly<Record<string, string | undefined>>

/** Fails for a name that the role does not have, for a repeated one, and for an invalid `%`. */
export const parse = (role: Parameter.Role, query: string): Either.Either<Texts, UrlError> =>
  Either.gen(function* () {
    const texts = new Map<string, string>()
    for (const pair of query.split("&").filter((pair) => pair !== "")) {
      const [name = "", value = ""] = /^([^=]*)=?(.*)$/s.exec(pair)?.slice(1) ?? []
      if (!Parameter.byRole[role].some((parameter) => parameter.name === name)) {
        return yield* refuseParameter(role, name, value)
      }
      const text = percentDecoded(value)
      if (Option.isNone(text)) return yield* refuse(name, value, "two hex digits after each %")
      if (texts.has(name)) return yield* refuse(name, value, "each parameter once")
      texts.set(name, text.value)
    }
    return Object.fromEntries(texts)
  })

/** The values of the role's parameters. Fails like `parse`, and for a text that its parameter does not accept. */
export const decode = <A, I>(
  role: Parameter.Role,
  schema: Schema.Schema<A, I>,
  query: string
): Either.Either<A, UrlError> =>
  Either.flatMap(parse(role, query), (texts) =>
    Either.orElse(Schema.decodeUnknownEither(schema)(texts), (error) => {
      const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
      const name = String(issue?.path[0])
      const expected = Parameter.byRole[role].find((parameter) => parameter.name === name)?.accepts
      return refuse(name, texts[name] ?? "", expected ?? String(issue?.message))
    })
  )

/** `a=1&b=2`, in the order of the role's parameters. */
export const format = (role: Parameter.Role, texts: Texts): string =>
  Parameter.byRole[role]
    .flatMap(({ name }) => {
      const text = texts[name]
      return text === undefined ? [] : [pair(name, text)]
    })
    .join("&")

/** The URL with these parameters added to its query, which does not have them. */
export const append = (url: string, role: Parameter.Role, texts: Texts): string => {
  const query = format(role, texts)
  const separator = !url.includes("?") ? "?" : /[?&]$/.test(url) ? "" : "&"
  return query === "" ? url : `${url}${separator}${query}`
}

// internal

/** Characters that would end the text, or change it, are percent-encoded. */
const pair = (name: string, text: string): string =>
  `${name}=${text.replace(/[\s%&#+]/g, (char) => encodeURIComponent(char))}`

const percentDecoded = Option.liftThrowable(decodeURIComponent)

const refuseParameter = (role: Parameter.Role, name: string, value: string): Either.Either<never, UrlError> => {
  const names = Parameter.byRole[role].map(({ name }) => name)
  const expected = `${role}:// accepts ${names.join(", ")}`
  const roles = Parameter.all.filter((parameter) => parameter.name === name).flatMap(({ roles }) => roles)
  if (roles.length > 0) {
    return refuseName(name, value, { problem: `is a ${[...new Set(roles)].join(" and ")} parameter`, expected })
  }
  const similar = names.find((own) => isSimilar(own, name.toLowerCase()))
  const hint = similar === undefined ? "" : ` (did you mean ${similar}?)`
  return refuseName(name, value, { problem: `is not a parameter${hint}`, expected })
}

/** Whether the words differ in one place, by two letters at most. */
const isSimilar = (a: string, b: string): boolean => {
  const shorter = Math.min(a.length, b.length)
  let start = 0
  while (start < shorter && a[start] === b[start]) start++
  let end = 0
  while (end < shorter - start && a.at(-1 - end) === b.at(-1 - end)) end++
  return start + end > 0 && Math.max(a.length, b.length) - start - end <= 2
}
