/**
 * The command's process: real sockets, signals, standard error and exit codes around `Cli`.
 */
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import process from "node:process"
import { stripVTControlCharacters } from "node:util"
import * as Cli from "../Cli.js"
import * as LogLine from "../LogLine.js"
import * as Settings from "../Settings.js"
import * as TunnelUrl from "../TunnelUrl.js"
import * as NodeCrypto from "./NodeCrypto.js"
import * as NodeLog from "./NodeLog.js"
import * as NodeTransport from "./NodeTransport.js"

const { version } = Schema.decodeUnknownSync(Schema.Struct({ version: Schema.String }))(
  // Beside the bundle, dist/nodepass.js.
  createRequire(import.meta.url)("../package.json")
)

const has = (stream: { readonly isTTY?: boolean | undefined }) =>
  stream.isTTY === true && (process.env["NO_COLOR"] ?? "") === ""

/** `--log-level` was given: `Command.run` has applied it, and the URL's `log` gives way. */
const explicitLevel = process.argv.some((word) => word === "--log-level" || word.startsWith("--log-level="))

const host = Cli.Host.of({
  version,
  prepare: (config) => {
    // Overwrites the arguments that `ps` shows, the key among them.
    process.title = `nodepass ${TunnelUrl.format(config)}`
    return explicitLevel ? Layer.empty : Logger.minimumLogLevel(LogLine.minimum(config.log))
  },
  demo: Effect.flatMap(
    Effect.promise(() => import("./Demo.js")),
    (Demo) =>
      Demo.run({
        write: (text) => Effect.sync(() => process.stdout.write(text)),
        redraws: process.stdout.isTTY
      })
  )
})

/** @effect/cli colours what it prints wherever it prints it. */
const plainOffTerminals = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Console.consoleWith((console) => {
    const print =
      (write: Console.Console["log"], colors: boolean): Console.Console["log"] =>
      (...args) =>
        write(...(colors ? args : args.map((arg) => (typeof arg === "string" ? stripVTControlCharacters(arg) : arg))))
    return Console.withConsole(self, {
      ...console,
      log: print(console.log, has(process.stdout)),
      error: print(console.error, has(process.stderr))
    })
  })

/** What is wrong goes to standard error in one line, and into the exit code; @effect/cli prints its own. */
const report = (cause: Cause.Cause<Cli.CliError | Settings.SettingsError>): Effect.Effect<never> => {
  const error = Cause.squash(cause)
  const usage = ["UrlError", "UsageError", "SettingsError"]
  const byUser = ValidationError.isValidationError(error) || (hasTag(error) && usage.includes(error._tag))
  const said = ValidationError.isValidationError(error)
  const line = hasTag(error) ? `nodepass: ${String(error.message)}` : `nodepass: a defect: ${Cause.pretty(cause)}`
  return Effect.zipRight(
    said ? Effect.void : Console.error(line),
    Effect.sync(() => process.exit(byUser ? 2 : 1))
  )
}

const hasTag = Schema.is(Schema.Struct({ _tag: Schema.String, message: Schema.String }))

/**
 * One Ctrl-C may arrive twice: the terminal sends it to the whole group, and npm or npx, being in it, sends it on. The
 * first begins the graceful stop. The second must not cut that short unless somebody has pressed again.
 */
const endAtOnceOnTheSecond = (signal: "SIGINT" | "SIGTERM", code: number) => {
  let first = Infinity
  process.on(signal, () => {
    first = Math.min(first, performance.now())
    if (performance.now() - first > 300) process.exit(code)
  })
}
endAtOnceOnTheSecond("SIGINT", 130)
endAtOnceOnTheSecond("SIGTERM", 143)

Cli.run(process.argv).pipe(
  Effect.provide(Layer.mergeAll(NodeContext.layer, NodeCrypto.layer, NodeTransport.layer, Settings.layerFromEnv)),
  Effect.provideService(Cli.Host, host),
  Effect.catchAllCause((cause) => (Cause.isInterruptedOnly(cause) ? Effect.failCause(cause) : report(cause))),
  Effect.provide(NodeLog.layer()),
  plainOffTerminals,
  NodeRuntime.runMain({ disableErrorReporting: true, disablePrettyLogger: true })
)
