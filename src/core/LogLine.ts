/**
 * One log record as one line of text: for people, or as JSON for programs.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as Inspectable from "effect/Inspectable"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Order from "effect/Order"
import * as Schema from "effect/Schema"

/** How much is logged: the `log` parameter of command URLs. */
export const Level = Schema.Literal("none", "debug", "info", "warn", "error", "event")
export type Level = typeof Level.Type

/** The least level that is logged; `event` logs as `info` does, its checkpoints come on top. */
export const minimum = (level: Level): LogLevel.LogLevel => minimums[level]

export interface TextOptions {
  /** Whether the level is coloured, for a terminal. Defaults to false. */
  readonly colors?: boolean | undefined
}

/**
 * `2026-01-31 12:00:00.000  INFO  message key=value`, in UTC.
 *
 * Always one line with no control character in it; values that would not read as one are quoted as in JSON.
 * Annotations stand in the order of their names. A cause is the value `cause`; while `debug` is logged, its stack is
 * the value `stack`.
 */
export const text = (options?: TextOptions): Logger.Logger<unknown, string> =>
  Logger.make((entry) => {
    const { logLevel, date } = entry
    const label = logLevel.label.padStart(5)
    const level = options?.colors === true ? `\u001b[${colors[logLevel._tag]}m${label}\u001b[0m` : label
    const time = date.toISOString().replace("T", " ").replace("Z", "")
    const fields = fieldsOf(entry).map(([key, value]) => ` ${quoted(key)}=${quoted(toText(value))}`)
    return `${time} ${level}  ${escaped(messageOf(entry))}${fields.join("")}`
  })

/**
 * `{"time":…,"level":"info","message":…}` and the annotations behind them.
 *
 * Numbers and truth values stay what they are, everything else is text. An annotation named like one of the first
 * three gets a `_` behind its name.
 */
export const json: Logger.Logger<unknown, string> = Logger.make((entry) =>
  escaped(
    JSON.stringify({
      time: entry.date.toISOString(),
      level: entry.logLevel.label.toLowerCase(),
      message: messageOf(entry),
      ...Object.fromEntries(
        fieldsOf(entry).map(([key, value]) => [
          ["time", "level", "message"].includes(key) ? `${key}_` : key,
          typeof value === "boolean" || Number.isFinite(value) ? value : toText(value)
        ])
      )
    })
  )
)

// internal

type Entry = Logger.Logger.Options<unknown>

const minimums = {
  none: LogLevel.None,
  debug: LogLevel.Debug,
  info: LogLevel.Info,
  warn: LogLevel.Warning,
  error: LogLevel.Error,
  event: LogLevel.Info
}

/** ANSI codes, as the original has them. */
const colors = { All: 34, Trace: 34, Debug: 34, Info: 32, Warning: 33, Error: 31, Fatal: 35, None: 0 }

const messageOf = ({ message }: Entry): string => Arr.ensure(message).map(toText).join(" ")

const fieldsOf = (entry: Entry): ReadonlyArray<readonly [string, unknown]> => {
  const errors = Cause.prettyErrors(entry.cause)
  const why = errors.length > 0 ? errors.map(({ message }) => message).join("; ") : "interrupted"
  const given = Arr.ensure(entry.message).filter((part) => part instanceof Error)
  const stack = [...given, ...errors].flatMap(({ stack }) => stack ?? []).join("\n")
  const least = FiberRefs.getOrDefault(entry.context, FiberRef.currentMinimumLogLevel)
  return [
    ...Arr.sortWith([...entry.annotations], ([key]) => key, Order.string),
    ...Arr.map([...entry.spans], (span) => [span.label, `${entry.date.getTime() - span.startTime}ms`] as const),
    ...(Cause.isEmpty(entry.cause) ? [] : [["cause", why] as const]),
    ...(stack !== "" && LogLevel.lessThanEqual(least, LogLevel.Debug) ? [["stack", stack] as const] : [])
  ]
}

/** What is logged may be anything; some things throw when they are asked for their text. */
const toText = (value: unknown): string =>
  value instanceof Error ? value.message : Option.getOrElse(printed(value), () => `unprintable ${typeof value}`)

const printed = Option.liftThrowable((value: unknown) => Inspectable.toStringUnknown(value, 0))

/** Control characters would break the line, or command the terminal that shows it: visitors choose some of the text. */
const escaped = (text: string): string =>
  text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (char) => escapes[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

const escapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const quoted = (text: string): string => (/^[^\s"=\\\p{Cc}]+$/u.test(text) ? text : escaped(JSON.stringify(text)))
