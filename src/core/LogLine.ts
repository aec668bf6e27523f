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

/** The lowest level that is logged. `event` logs like `info`, and adds checkpoints. */
export const minimum = (level: Level): LogLevel.LogLevel => minimums[level]

export interface TextOptions {
  /** Whether the level has a colour, for a terminal. Defaults to `false`. */
  readonly colors?: boolean | undefined
}

/**
 * `2026-01-31 12:00:00.000Z  INFO  message key=value`, in UTC.
 *
 * Always one line, without control characters. A value with spaces, quotes or `=` is quoted as in JSON.
 * Annotations are sorted by name. A cause becomes the value `cause`; at level `debug`, its stack becomes the value `stack`.
 */
export const text = (options?: TextOptions): Logger.Logger<unknown, string> =>
  Logger.make((record) => {
    const { logLevel, date } = record
    const label = logLevel.label.padStart(5)
    const level = options?.colors === true ? `\u001b[${colors[logLevel._tag]}m${label}\u001b[0m` : label
    const time = date.toISOString().replace("T", " ")
    const fields = fieldsOf(record).map(([key, value]) => ` ${quoted(key)}=${quoted(toText(value))}`)
    return `${time} ${level}  ${escaped(messageOf(record))}${fields.join("")}`
  })

/**
 * `{"time":…,"level":"info","message":…}`, followed by the annotations.
 *
 * Numbers and booleans keep their type, everything else becomes text. An annotation called `time`, `level` or `message` gets
 * a `_` after its name.
 */
export const json: Logger.Logger<unknown, string> = Logger.make((record) =>
  escaped(
    JSON.stringify({
      time: record.date.toISOString(),
      level: record.logLevel.label.toLowerCase(),
      message: messageOf(record),
      ...Object.fromEntries(
        fieldsOf(record).map(([key, value]) => [
          ["time", "level", "message"].includes(key) ? `${key}_` : key,
          typeof value === "boolean" || Number.isFinite(value) ? value : toText(value)
        ])
      )
    })
  )
)

// internal

type LogRecord = Logger.Logger.Options<unknown>

const minimums = {
  none: LogLevel.None,
  debug: LogLevel.Debug,
  info: LogLevel.Info,
  warn: LogLevel.Warning,
  error: LogLevel.Error,
  event: LogLevel.Info
}

/** ANSI codes, the same as NodePass uses. */
const colors = { All: 34, Trace: 34, Debug: 34, Info: 32, Warning: 33, Error: 31, Fatal: 35, None: 0 }

const messageOf = ({ message }: LogRecord): string => Arr.ensure(message).map(toText).join(" ")

const fieldsOf = (record: LogRecord): ReadonlyArray<readonly [string, unknown]> => {
  const errors = Cause.prettyErrors(record.cause)
  const cause = errors.length > 0 ? errors.map(({ message }) => message).join("; ") : "interrupted"
  const logged = Arr.ensure(record.message).filter((part) => part instanceof Error)
  const stack = [...logged, ...errors].flatMap(({ stack }) => stack ?? []).join("\n")
  const minimumLevel = FiberRefs.getOrDefault(record.context, FiberRef.currentMinimumLogLevel)
  return [
    ...Arr.sortWith([...record.annotations], ([key]) => key, Order.string),
    ...Arr.map([...record.spans], (span) => [span.label, `${record.date.getTime() - span.startTime}ms`] as const),
    ...(Cause.isEmpty(record.cause) ? [] : [["cause", cause] as const]),
    ...(stack !== "" && LogLevel.lessThanEqual(minimumLevel, LogLevel.Debug) ? [["stack", stack] as const] : [])
  ]
}

/** The text of any value. Some values throw when they are converted to text. */
const toText = (value: unknown): string =>
  value instanceof Error ? value.message : Option.getOrElse(print(value), () => `unprintable ${typeof value}`)

const print = Option.liftThrowable((value: unknown) => Inspectable.toStringUnknown(value, 0))

/** Visitors choose some of the text. Its control characters could break the line, or control the terminal. */
const escaped = (text: string): string =>
  text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (char) => escapes[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

const escapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const quoted = (text: string): string => (/^[^\s"=\\\p{Cc}]+$/u.test(text) ? text : escaped(JSON.stringify(text)))
