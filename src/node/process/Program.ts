/**
 * The command as one effect: what it runs with real sockets, what it prints, and its exit code.
 */
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { format, stripVTControlCharacters } from "node:util"
import * as Cli from "../../cli/Cli.js"
import { Host } from "../../cli/Host.js"
import * as Settings from "../../transport/Settings.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as NodeWrittenFile from "../file/NodeWrittenFile.js"
import * as NodeHost from "./NodeHost.js"
import * as StandardOutput from "./StandardOutput.js"

export interface Options {
  /** The arguments of a process, the first two of which name the program. */
  readonly argv: ReadonlyArray<string>
  readonly host: Host["Type"]
  /** Writes to standard output. Dies with an `OutputError`. */
  readonly write: (text: string) => Effect.Effect<void>
  /** Writes a line to standard error, without its line feed. */
  readonly writeError: (line: string) => Effect.Effect<void>
  /** Whether standard output shows colours; otherwise they are removed from the output of @effect/cli. */
  readonly colors: boolean
}

/** Runs the command to its end, prints its error as one line, and gives the exit code. Interruption stops it gracefully. */
export const run = (options: Options): Effect.Effect<number> =>
  Cli.run(options.argv).pipe(
    Effect.provide(Layer.provideMerge(layer, Settings.layerFromEnv)),
    Effect.provideService(Host, options.host),
    Effect.as(0),
    Effect.catchAllCause(report),
    withPlainConsole(options)
  )

// internal

const layer = Layer.mergeAll(
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

const withPlainConsole =
  ({ colors, write, writeError }: Options) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Console.consoleWith((console) => {
      const plain = (value: unknown) => (typeof value === "string" ? stripVTControlCharacters(value) : value)
      return Console.withConsole(self, {
        ...console,
        log: (...args) => write(`${format(...(colors ? args : args.map(plain)))}\n`),
        error: (...args) => {
          const line = args.map((arg: unknown) => String(plain(arg))).join(" ")
          return writeError(`nodepass: ${line.replaceAll(/\s+/g, " ").trim()}`)
        }
      })
    })

/** Errors of the machine or the network, exit code 1. Every other error is one of the command line, exit code 2. */
const runtimeErrors: ReadonlySet<string> = new Set([
  "CertificateError",
  "KeyNotShown",
  "OperatorError",
  "StoreError",
  "TransportError"
])

/** Prints the error as one line on standard error, and gives its exit code. */
const report = (cause: Cause.Cause<Cli.CliError | Settings.SettingsError>): Effect.Effect<number> => {
  const fail = (message: string, code: 1 | 2) => Effect.as(Console.error(message), code)
  if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
  return Option.match(Cause.failureOption(cause), {
    onNone: () => {
      const defect = Option.getOrUndefined(Cause.dieOption(cause))
      if (!(defect instanceof StandardOutput.OutputError)) return fail(`internal error: ${Cause.pretty(cause)}`, 1)
      return defect.isClosedPipe ? Effect.succeed(1) : fail(defect.message, 1)
    },
    onSome: (error) => {
      // @effect/cli has printed the error.
      if (ValidationError.isValidationError(error)) return Effect.succeed(2)
      return fail(error.message, runtimeErrors.has(error._tag) ? 1 : 2)
    }
  })
}
