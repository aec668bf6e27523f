/**
 * What is wrong with a command URL, in one line that never contains a key.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/** The text is not a valid command URL. */
export class UrlError extends Schema.TaggedError<UrlError>()("UrlError", {
  /** What is wrong: a parameter's name, `url`, `scheme`, `key`, `tunnel`, `tunnel port`, `target`, `fragment`, … */
  part: Schema.String,
  /** As it was given, or `***` where it may be secret; empty when there is none. */
  value: Schema.String,
  /** What would be accepted. */
  expected: Schema.String,
  /** Why the part is not accepted with any value; follows the part. */
  problem: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const { expected, part, problem, value } = this
    if (problem !== undefined) return `${part} ${problem}; ${expected}`
    return `${part}${value === "" ? " is missing" : `=${value}`}: expected ${expected}`
  }
}

/** Fails. Secrets are masked, control characters escaped, and long texts cut. */
export const refuse = (part: string, value: string, expected: string): Either.Either<never, UrlError> =>
  Either.left(new UrlError({ part: printable(part), value: shown(part, value), expected }))

/** Fails because of the part's name, with any value. `expected` is a clause of its own. */
export const refuseName = (
  part: string,
  value: string,
  { expected, problem }: { readonly problem: string; readonly expected: string }
): Either.Either<never, UrlError> =>
  Either.left(new UrlError({ part: printable(part), value: shown(part, value), problem, expected }))

/** The text with everything between the scheme and the last `@` replaced by `***`. */
export const masked = (text: string): string => text.replace(/^([^:/?#@]*:\/\/)?.*@/s, "$1***@")

// internal

const shown = (part: string, value: string): string =>
  value !== "" && /key|pass|secret|token|auth|cred/i.test(part) ? "***" : printable(value)

const printable = (text: string): string => {
  const line = text.length > 80 ? `${text.slice(0, 80)}…` : text
  return line.replace(
    /[\p{Cc}\p{Zl}\p{Zp}\p{Surrogate}]/gu,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
}
