/**
 * Schemas for the values of query parameters: text ⇄ value.
 *
 * Encoding never fails, so that every config has a URL, also one that a host made by hand.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as GoDuration from "../core/GoDuration.js"
import * as IpNetwork from "../core/IpNetwork.js"

/** `0` ⇄ `false`, `1` ⇄ `true`. */
export const Flag = Schema.transformLiterals(["0", false], ["1", true])

/** A path of a file or folder. */
export const FilePath = Schema.String.pipe(Schema.filter((text) => text !== "" && !text.includes("\0")))

/** A whole number from `min` to `max`, in decimal digits with no leading zero. */
export const wholeNumber = (min: number, max: number): Schema.Schema<number, string> =>
  fromText(Schema.Number, (text) => parseWholeNumber(text, min, max), String)

/** A whole number up to `max`; `0` ⇄ `Infinity`, no limit. */
export const numberLimit = (max: number): Schema.Schema<number, string> =>
  fromText(
    Schema.Number,
    (text) => Option.map(parseWholeNumber(text, 0, max), (limit) => (limit === 0 ? Infinity : limit)),
    (limit) => (Number.isFinite(limit) ? String(limit) : "0")
  )

/** A duration from `min`; `0` ⇄ infinite, no limit. */
export const durationLimit = (min: Duration.Duration): Schema.Schema<Duration.Duration, string> =>
  fromText(
    Schema.DurationFromSelf,
    (text) =>
      GoDuration.fromText(text).pipe(
        Option.map((limit) => (Duration.isZero(limit) ? Duration.infinity : limit)),
        Option.filter(Duration.greaterThanOrEqualTo(min))
      ),
    (limit) => (Duration.isFinite(limit) ? GoDuration.toText(limit) : "0")
  )

/** A duration up to `max`; `0` is zero. */
export const durationUpTo = (max: Duration.Duration): Schema.Schema<Duration.Duration, string> =>
  fromText(
    Schema.DurationFromSelf,
    (text) => Option.filter(GoDuration.fromText(text), Duration.lessThanOrEqualTo(max)),
    GoDuration.toText
  )

/** One network or more, with commas between. */
export const networks: Schema.Schema<ReadonlyArray<IpNetwork.IpNetwork>, string> = Schema.suspend(() =>
  fromText(
    Schema.Array(IpNetwork.IpNetwork),
    (text) => Option.all(text.split(",").map(IpNetwork.fromText)),
    (networks) => networks.map(({ text }) => text).join(",")
  )
)

// internal

const fromText = <A>(
  schema: Schema.Schema<A>,
  decode: (text: string) => Option.Option<A>,
  encode: (value: A) => string
): Schema.Schema<A, string> =>
  Schema.transformOrFail(Schema.String, schema, {
    strict: true,
    encode: (value) => ParseResult.succeed(encode(value)),
    decode: (text, _, ast) =>
      Option.match(decode(text), {
        onNone: () => ParseResult.fail(new ParseResult.Type(ast, text)),
        onSome: ParseResult.succeed
      })
  })

const parseWholeNumber = (text: string, min: number, max: number): Option.Option<number> =>
  /^(0|[1-9]\d{0,8})$/.test(text) && min <= Number(text) && Number(text) <= max
    ? Option.some(Number(text))
    : Option.none()
