/**
 * The log of the process: one line for each record, on standard error.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLine from "../../core/LogLine.js"
import * as StatusLine from "./StatusLine.js"

export interface Options {
  /** The minimum level. Defaults to `info`. */
  readonly level?: LogLine.Level | undefined
  /** Defaults to `json` if `NP_LOG_FORMAT=json` is set, else `text`. */
  readonly format?: "text" | "json" | undefined
  /** Whether levels are coloured. Defaults to `hasColors` of standard error. */
  readonly colors?: boolean | undefined
}

/**
 * Replaces Effect's default and pretty loggers; other loggers that the host added stay.
 *
 * If the reader of standard error goes away, the log ends and the process goes on.
 */
export const layer = (options?: Options): Layer.Layer<never> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const format = options?.format ?? ((yield* variable("NP_LOG_FORMAT")) === "json" ? "json" : "text")
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

/** Whether the stream is a terminal and `NO_COLOR` is not set: https://no-color.org */
export const hasColors = (stream: { readonly isTTY?: boolean | undefined }): Effect.Effect<boolean> =>
  Effect.map(variable("NO_COLOR"), (value) => stream.isTTY === true && value === "")

// internal

/** Empty if the variable is not set. */
const variable = (name: string): Effect.Effect<string> => Effect.orElseSucceed(Config.string(name), () => "")

const write = (line: string): void => {
  // EPIPE is emitted as an `error` event, which ends the process if nothing listens.
  if (!process.stderr.listeners("error").includes(ignore)) process.stderr.on("error", ignore)
  process.stderr.write(StatusLine.above(line))
}

const ignore = (): void => {}
