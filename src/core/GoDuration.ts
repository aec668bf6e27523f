/**
 * Durations in Go's notation, which command URLs and `NP_*` variables use: `30s`, `5m`, `1h30m`.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"

/**
 * `30s`, `5m`, `1h30m`, `250ms`, `1.5s`, `0`: decimal numbers, each with a unit of `h m s ms us ns`.
 *
 * Exact to the nanosecond. The longest is Go's, some 292 years. An infinite duration has no text.
 * Source: Go, time.ParseDuration.
 */
export const FromText: Schema.Schema<Duration.Duration, string> = Schema.transformOrFail(
  Schema.String,
  Schema.DurationFromSelf,
  {
    strict: true,
    encode: (duration, _, ast) =>
      Duration.isFinite(duration)
        ? ParseResult.succeed(toText(duration))
        : ParseResult.fail(new ParseResult.Type(ast, duration, "expected a finite duration")),
    decode: (text, _, ast) =>
      Option.match(fromText(text), {
        onNone: () =>
          ParseResult.fail(new ParseResult.Type(ast, text, "expected a duration such as 30s, 1h30m, 250ms")),
        onSome: ParseResult.succeed
      })
  }
)

/** Decodes like `FromText`. */
export const fromText = (text: string): Option.Option<Duration.Duration> => {
  if (text === "0") return Option.some(Duration.zero)
  if (!pattern.test(text)) return Option.none()
  const nanos = [...text.matchAll(part)].reduce(
    (sum, [, whole, fraction, unit]) => sum + nanosOf(whole, fraction, unit),
    0n
  )
  return nanos > maxNanos ? Option.none() : Option.some(fromNanos(nanos))
}

/** The shortest such text: `10m`, `1h30m`, `1m0.5s`, `250ms`, `0`; `forever` for an infinite duration. */
export const toText = (duration: Duration.Duration): string => {
  if (!Duration.isFinite(duration)) return "forever"
  const nanos = toNanos(duration)
  if (nanos === 0n) return "0"
  if (nanos < units.s) {
    const unit = nanos >= units.ms ? "ms" : nanos >= units.us ? "us" : "ns"
    return `${decimal(nanos, units[unit])}${unit}`
  }
  const [hours, minutes, seconds] = [nanos / units.h, (nanos % units.h) / units.m, nanos % units.m]
  return [
    hours > 0n ? `${hours}h` : "",
    minutes > 0n ? `${minutes}m` : "",
    seconds > 0n ? `${decimal(seconds, units.s)}s` : ""
  ].join("")
}

// internal

const units = { ns: 1n, us: 1_000n, ms: 1_000_000n, s: 1_000_000_000n, m: 60_000_000_000n, h: 3_600_000_000_000n }
const byName = new Map<string, bigint>([...Object.entries(units), ["µs", units.us], ["μs", units.us]])

/** Go counts nanoseconds in a signed 64-bit integer. */
const maxNanos = 2n ** 63n - 1n

// No duration in range has more digits. The bound keeps a hostile text cheap.
const part = /(\d{1,20})?(?:\.(\d{0,20}))?(h|ms|m|s|us|µs|μs|ns)/g
const pattern = /^(?:(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:h|ms|m|s|us|µs|μs|ns)){1,20}$/

const nanosOf = (whole = "", fraction = "", unit = ""): bigint =>
  (BigInt(whole + fraction) * (byName.get(unit) ?? 0n)) / 10n ** BigInt(fraction.length)

/** Whole milliseconds become `Duration.millis`, as everywhere else, so that equal durations compare equal. */
const fromNanos = (nanos: bigint): Duration.Duration => {
  const millis = Number(nanos / units.ms)
  return nanos % units.ms === 0n && Number.isSafeInteger(millis) ? Duration.millis(millis) : Duration.nanos(nanos)
}

/** Unlike `Duration.toNanos`, which multiplies in floating point and is inexact beyond some years. */
const toNanos = (duration: Duration.Duration): bigint =>
  Duration.match(duration, { onMillis: (millis) => BigInt(millis) * units.ms, onNanos: (nanos) => nanos })

const decimal = (nanos: bigint, unit: bigint): string => {
  const fraction = (nanos % unit)
    .toString()
    .padStart(unit.toString().length - 1, "0")
    .replace(/0+$/, "")
  return fraction === "" ? `${nanos / unit}` : `${nanos / unit}.${fraction}`
}
