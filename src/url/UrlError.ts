/**
 * What is wrong with a command URL, in one line that never holds a key.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/** The text is no URL that this version can serve. */
export class UrlError extends Schema.TaggedError<UrlError>()("UrlError", {
  /** What is wrong: a parameter's name, `url`, `scheme`, `key`, `tunnel`, `tunnel port`, `target`, `fragment`, … */
  part: Schema.String,
  /** As it was given, or `***` where it may be secret; empty when there is none. */
  value: Schema.String,
  /** What would be accepted. */
  expected: Schema.String
}) {
  override get message(): string {
    return `${this.part}${this.value === "" ? " is missing" : `=${this.value}`}: expected ${this.expected}`
  }
}

/** Fails; what may be secret is masked, and what would break the line or fill the screen is shown so that it does not. */
export const refuse = (part: string, value: string, expected: string): Either.Either<never, UrlError> => {
  const secret = value !== "" && /key|pass|secret|token|auth|cred/i.test(part)
  return Either.left(new UrlError({ part: printable(part), value: secret ? "***" : printable(value), expected }))
}

/** The text without what stands before its last `@`, but for the scheme. */
export const masked = (text: string): string => text.replace(/^([^:/?#@]*:\/\/)?.*@/s, "$1***@")

// internal

const printable = (text: string): string => {
  const line = text.length > 80 ? `${text.slice(0, 80)}…` : text
  return line.replace(
    /[\p{Cc}\p{Zl}\p{Zp}\p{Surrogate}]/gu,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
}
