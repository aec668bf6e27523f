/**
 * The process's log: one line a record on standard error.
 */
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLine from "../../core/LogLine.js"
import * as StatusLine from "./StatusLine.js"

export interface Options {
  /** How much is logged. Defaults to `info`. */
  readonly level?: LogLine.Level | undefined
  /** Lines for people or for programs. Defaults to `json` where `NP_LOG_FORMAT=json` is set, else `text`. */
  readonly format?: "text" | "json" | undefined
  /** Whether levels are coloured. Defaults to whether standard error is a terminal and `NO_COLOR` is not set. */
  readonly colors?: boolean | undefined
}

/**
 * Takes the place of Effect's own loggers, the plain and the pretty one; others that the host added stay.
 *
 * A reader of standard error that goes away ends the log and nothing else.
 */
export const layer = (options?: Options): Layer.Layer<never> => {
  const format = options?.format ?? (process.env["NP_LOG_FORMAT"] === "json" ? "json" : "text")
  const colors = options?.colors ?? (process.stderr.isTTY && (process.env["NO_COLOR"] ?? "") === "")
  const line = format === "json" ? LogLine.json : LogLine.text({ colors })
  return Layer.mergeAll(
    Logger.remove(Logger.defaultLogger),
    Logger.remove(Logger.prettyLoggerDefault),
    Logger.add(Logger.map(line, write)),
    Logger.minimumLogLevel(LogLine.minimum(options?.level ?? "info"))
  )
}

// internal

const write = (line: string): void => {
  // EPIPE arrives as an event, and without a listener it would end the process.
  if (!process.stderr.listeners("error").includes(ignore)) process.stderr.on("error", ignore)
  process.stderr.write(StatusLine.above(line))
}

const ignore = (): void => {}
