/**
 * The query of a command URL: the text of each parameter, checked, with the defaults for the others.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Parameter from "./Parameter.js"
import { refuse, type UrlError } from "./UrlError.js"

/** Texts by name; each is one that its parameter accepts. */
export type Texts = Readonly<Record<string, string | undefined>>

/**
 * Reads `a=1&b=2` for a role.
 *
 * Fails for a name that is unknown, given twice or another role's, and for a value out of range.
 */
export const parse = (role: Parameter.Role, query: string): Either.Either<Texts, UrlError> =>
  Either.gen(function* () {
    const given = new Map<string, string>()
    for (const pair of query.split("&").filter((pair) => pair !== "")) {
      const [name = "", value = ""] = /^([^=]*)=?(.*)$/s.exec(pair)?.slice(1) ?? []
      const text = percentDecoded(value)
      if (Option.isNone(text)) return yield* refuse(name, value, "two hex digits after each %")
      yield* check(role, name, text.value)
      if (given.has(name)) return yield* refuse(name, value, "each parameter once")
      given.set(name, text.value)
    }
    const defaults = Parameter.of(role).flatMap((parameter) =>
      parameter.default === undefined ? [] : [[parameter.name, parameter.default] as const]
    )
    return Object.fromEntries([...defaults, ...given])
  })

// internal

const percentDecoded = Option.liftThrowable(decodeURIComponent)

const check = (role: Parameter.Role, name: string, value: string): Either.Either<void, UrlError> => {
  const own = Parameter.of(role)
  const parameter = own.find((parameter) => parameter.name === name)
  if (parameter !== undefined) {
    return Option.isSome(Schema.decodeUnknownOption(parameter.schema)(value))
      ? Either.void
      : refuse(name, value, parameter.expected)
  }
  const names = own.map(({ name }) => name)
  const takes = `${role}:// takes ${names.join(", ")}`
  const other = Parameter.all.find((parameter) => parameter.name === name)
  if (other !== undefined) return refuse(name, value, `this only with ${other.roles.join(", ")}://; ${takes}`)
  const meant = names.find((own) => isClose(own, name.toLowerCase()))
  return refuse(name, value, `a known parameter${meant === undefined ? "" : `, perhaps ${meant}`}; ${takes}`)
}

/** Whether a letter or two in one place make one word the other. */
const isClose = (a: string, b: string): boolean => {
  const shorter = Math.min(a.length, b.length)
  let start = 0
  while (start < shorter && a[start] === b[start]) start++
  let end = 0
  while (end < shorter - start && a.at(-1 - end) === b.at(-1 - end)) end++
  return start + end > 0 && Math.max(a.length, b.length) - start - end <= 2
}
