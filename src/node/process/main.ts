/**
 * The entry of the command: runs `Cli` with real sockets, and turns signals and errors into exit codes.
 */
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import process from "node:process"
import { format, stripVTControlCharacters } from "node:util"
import * as Cli from "../../cli/Cli.js"
import { Host } from "../../cli/Host.js"
import * as Settings from "../../transport/Settings.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as NodeWrittenFile from "../file/NodeWrittenFile.js"
import * as CliHost from "./CliHost.js"
import * as NodeHost from "./NodeHost.js"
import * as NodeLog from "./NodeLog.js"
import * as SecretVariables from "./SecretVariables.js"
import * as StandardOutput from "./StandardOutput.js"

const secrets = SecretVariables.take()

/** Removes colours from the output of @effect/cli unless it goes to a terminal, and prints each error as one line. */
const withPlainConsole = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(NodeLog.hasColors(process.stdout), (colors) =>
    Console.consoleWith((console) => {
      const plain = (value: unknown) => (typeof value === "string" ? stripVTControlCharacters(value) : value)
      return Console.withConsole(self, {
        ...console,
        log: (...args) => StandardOutput.write(`${format(...(colors ? args : args.map(plain)))}\n`),
        error: (...args) => {
          const line = args.map((arg: unknown) => String(plain(arg))).join(" ")
          return console.error(`nodepass: ${line.replaceAll(/\s+/g, " ").trim()}`)
        }
      })
    })
  )

/** Errors of the machine or the network, exit code 1. Every other error is one of the command line, exit code 2. */
const runtimeErrors: ReadonlySet<string> = new Set([
  "CertificateError",
  "KeyNotShown",
  "OperatorError",
  "StoreError",
  "TransportError"
])

/** Prints the error as one line on standard error and exits with its code. */
const report = (cause: Cause.Cause<Cli.CliError | Settings.SettingsError>): Effect.Effect<void> => {
  const exit = (code: 1 | 2) => Effect.sync(() => process.exit(code))
  const fail = (message: string, code: 1 | 2) => Effect.zipRight(Console.error(message), exit(code))
  if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
  return Option.match(Cause.failureOption(cause), {
    onNone: () => {
      const defect = Option.getOrUndefined(Cause.dieOption(cause))
      if (!(defect instanceof StandardOutput.OutputError)) return fail(`internal error: ${Cause.pretty(cause)}`, 1)
      return defect.isClosedPipe ? exit(1) : fail(defect.message, 1)
    },
    onSome: (error) => {
      // @effect/cli has printed the error.
      if (ValidationError.isValidationError(error)) return exit(2)
      return fail(error.message, runtimeErrors.has(error._tag) ? 1 : 2)
    }
  })
}

/**
 * The first signal starts the graceful stop; a second one exits at once.
 *
 * One Ctrl-C can arrive twice: the terminal sends SIGINT to the whole process group, and npm or npx in that group forward
 * theirs. So a second signal within 300 ms is ignored.
 */
const exitOnSecondSignal = (signal: "SIGINT" | "SIGTERM", code: number) => {
  let first = Infinity
  process.on(signal, () => {
    first = Math.min(first, performance.now())
    if (performance.now() - first > 300) process.exit(code)
  })
}
exitOnSecondSignal("SIGINT", 130)
exitOnSecondSignal("SIGTERM", 143)

const host = Layer.mergeAll(
  NodeContext.layer,
  NodeRegularFile.layer,
  NodeWrittenFile.layer,
  Layer.unwrapEffect(
    Effect.map(Settings.Settings, ({ bufferLimit, reactors, relay, stateDirectory }) =>
      NodeHost.layerWith({
        bufferLimit,
        relay,
        reactors: Option.getOrUndefined(reactors),
        stateDirectory: Option.getOrUndefined(stateDirectory)
      })
    )
  )
)

Cli.run(process.argv).pipe(
  Effect.provide(Layer.provideMerge(host, Settings.layerFromEnv)),
  Effect.provideService(Host, CliHost.host),
  Effect.catchAllCause(report),
  Effect.provide(NodeLog.layer()),
  Effect.withConfigProvider(SecretVariables.provider(secrets)),
  withPlainConsole,
  NodeRuntime.runMain({ disableErrorReporting: true, disablePrettyLogger: true })
)
