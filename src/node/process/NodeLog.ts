/**
 * The process's log: one line a record on standard error.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
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
export const layer = (options?: Options): Layer.Layer<never> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const isJson = Option.contains(yield* Effect.option(Config.string("NP_LOG_FORMAT")), "json")
      const format = options?.format ?? (isJson ? "json" : "text")
      const colors = options?.colors ?? (yield* hasColors(process.stderr))
      const line = format === "json" ? LogLine.json : LogLine.text({ colors })
      return Layer.mergeAll(
        Logger.remove(Logger.defaultLogger),
        Logger.remove(Logger.prettyLoggerDefault),
        Logger.add(Logger.map(line, write)),
        Logger.minimumLogLevel(LogLine.minimum(options?.level ?? "info"))
      )
    })
  )

/** Whether the stream is a terminal and `NO_COLOR` is not set. */
export const hasColors = ({ isTTY }: { readonly isTTY?: boolean | undefined }): Effect.Effect<boolean> =>
  Effect.map(Effect.option(Config.nonEmptyString("NO_COLOR")), (noColor) => isTTY === true && Option.isNone(noColor))

// internal

const write = (line: string): void => {
  // EPIPE arrives as an event, and without a listener it would end the process.
  if (!process.stderr.listeners("error").includes(ignore)) process.stderr.on("error", ignore)
  process.stderr.write(StatusLine.above(line))
}

const ignore = (): void => {}
