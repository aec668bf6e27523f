/**
 * Runs the command in the process of the tests: real sockets without the start of a process, which costs half a second.
 *
 * It is all of the command but its entry. Signals, standard streams and what the system shows of a process need one.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as Cli from "../../../src/cli/Cli.js"
import type { Host } from "../../../src/cli/Host.js"
import * as LogLine from "../../../src/core/LogLine.js"
import * as CliHost from "../../../src/node/process/CliHost.js"
import * as Demo from "../../../src/node/process/Demo.js"
import * as Program from "../../../src/node/process/Program.js"
import * as Telemetry from "../../../src/node/process/Telemetry.js"
import { makeOutputs, type Run, type Start, type TunnelOptions, tunnelOf, type World } from "./Nodepass.js"

export interface HereRun extends Run {
  /** Reads its files again, as SIGHUP makes a process do. */
  readonly reload: () => void
}

const { version } = CliHost.host

/** Starts commands in a world. The environment of each has the given variables only. */
export const starter =
  (world: World): Start<HereRun> =>
  (args, env = {}) => {
    const argv = ["node", "nodepass", ...args]
    const { end, write, ...outputs } = makeOutputs()
    const writeOut = (text: string) => Effect.sync(() => write("out", text))
    const reloads = Effect.runSync(Queue.sliding<void>(1))
    const host: Host["Type"] = {
      ...CliHost.host,
      reloads: Stream.fromQueue(reloads),
      logReloads: Effect.never,
      demo: (metrics) =>
        Demo.run({ metrics, version, write: writeOut, isTerminal: false }).pipe(
          Effect.provide(Telemetry.layer({ version }))
        ),
      prepare: ({ log }) =>
        Layer.provideMerge(
          Telemetry.layer({ version }),
          Cli.logLevelOf(argv) === undefined ? Logger.minimumLogLevel(LogLine.minimum(log)) : Layer.empty
        )
    }

    const writeLine = (line: string) => write("log", `${line}\n`)
    const loggers = Layer.mergeAll(
      Logger.remove(Logger.defaultLogger),
      Logger.add(Logger.map(env["NP_LOG_FORMAT"] === "json" ? LogLine.json : LogLine.text(), writeLine)),
      Logger.minimumLogLevel(LogLine.minimum("info"))
    )
    const writeError = (line: string) => Effect.sync(() => writeLine(line))
    const fiber = Program.run({ argv, host, write: writeOut, writeError, colors: false }).pipe(
      Effect.provide(loggers),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env)))),
      Effect.runFork
    )
    const ended = new Promise<number>((resolve) =>
      fiber.addObserver((exit) => {
        resolve(Exit.match(exit, { onSuccess: (code) => code, onFailure: () => 0 }))
        end()
      })
    )
    const stop = () => {
      Effect.runFork(Fiber.interrupt(fiber))
      return ended
    }
    return world.own({ ...outputs, ended, stop, reload: () => void Queue.unsafeOffer(reloads, undefined) }, stop)
  }

/** A tunnel of which both sides run here. */
export const tunnel = (world: World, options: TunnelOptions) =>
  tunnelOf(options, { server: starter(world), client: starter(world) })
