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
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createRequire } from "node:module"
import process from "node:process"
import { stripVTControlCharacters } from "node:util"
import * as Cli from "../../cli/Cli.js"
import * as LogLine from "../../core/LogLine.js"
import * as Settings from "../../transport/Settings.js"
import * as NodeHost from "./NodeHost.js"
import * as NodeLog from "./NodeLog.js"
import * as OtelConfig from "./OtelConfig.js"
import * as StatusLine from "./StatusLine.js"

const { version } = Schema.decodeUnknownSync(Schema.Struct({ version: Schema.String }))(
  // Beside the bundle, dist/nodepass.js.
  createRequire(import.meta.url)("../package.json")
)

/** Exports telemetry as the `OTEL_*` variables have it. Without an exporter no spans are made: each takes 10 to 20 us. */
const telemetry: Layer.Layer<never> = Layer.unwrapEffect(
  Effect.matchEffect(OtelConfig.config, {
    onFailure: (error) =>
      Effect.as(
        Effect.logWarning(`telemetry is not exported: ${OtelConfig.explain(error)}`),
        Layer.setTracerEnabled(false)
      ),
    onSuccess: Option.match({
      onNone: () => Effect.succeed(Layer.setTracerEnabled(false)),
      onSome: (config) =>
        Effect.map(
          Effect.promise(() => import("./OpenTelemetry.js")),
          (OpenTelemetry) => OpenTelemetry.layer({ config, version })
        )
    })
  })
)

const loadState = Effect.promise(() => import("../store/NodeState.js"))

const host = Cli.Host.of({
  version,
  reloads: Stream.asyncPush<void>((emit) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const reload = () => emit.single(undefined)
        process.on("SIGHUP", reload)
        return reload
      }),
      (reload) => Effect.sync(() => process.off("SIGHUP", reload))
    )
  ),
  prepare: ({ log, title }) => {
    // Overwrites the arguments that `ps` shows, the key among them.
    process.title = `nodepass ${title}`
    const level =
      Cli.logLevelOf(process.argv) !== undefined ? Layer.empty : Logger.minimumLogLevel(LogLine.minimum(log))
    return Layer.provideMerge(telemetry, level)
  },
  watch: (tunnel) =>
    process.stderr.isTTY
      ? Effect.scoped(
          Effect.flatMap(StatusLine.make, (draw) =>
            Effect.repeat(
              Effect.flatMap(tunnel.checkpoint, ({ summary }) => draw(summary)),
              Schedule.spaced("500 millis")
            )
          )
        ).pipe(Effect.asVoid)
      : Stream.runForEach(tunnel.checkpoints, ({ summary }) => Effect.logInfo(summary)),
  serveMetrics: (address, tunnel) =>
    Layer.unwrapEffect(
      Effect.map(
        Effect.promise(() => import("./MetricsServer.js")),
        (MetricsServer) => MetricsServer.layer({ address, version }, tunnel)
      )
    ),
  demo: (metrics) =>
    Effect.flatMap(
      Effect.promise(() => import("./Demo.js")),
      (Demo) =>
        Demo.run({
          metrics,
          version,
          write: (text) => Effect.sync(() => process.stdout.write(text)),
          isTerminal: process.stdout.isTTY
        }).pipe(Effect.provide(telemetry))
    ),
  master: (config) =>
    Effect.flatMap(
      Effect.promise(() => import("./NodeMaster.js")),
      (NodeMaster) => NodeMaster.run({ config, version })
    ),
  operate: (operation) =>
    Effect.flatMap(
      Effect.promise(() =>
        Promise.all([import("../../cli/Operator.js"), import("@effect/platform-node/NodeHttpClient")])
      ),
      ([{ operate }, { layerUndici }]) => Effect.provide(operate(operation), layerUndici)
    ),
  backup: (file, state) => Effect.flatMap(loadState, (NodeState) => NodeState.backup(file, state)),
  restore: (file, state, options) => Effect.flatMap(loadState, (NodeState) => NodeState.restore(file, state, options))
})

/** What @effect/cli prints: in colour on terminals only, and each error in one line. */
const plainly = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.all([Effect.console, NodeLog.hasColors(process.stdout)]), ([console, colors]) => {
    const text = (value: unknown, colors: boolean) =>
      typeof value === "string" && !colors ? stripVTControlCharacters(value) : value
    return Console.withConsole(self, {
      ...console,
      log: (...args) => console.log(...args.map((arg: unknown) => text(arg, colors))),
      error: (...args) => {
        const line = args.map((arg: unknown) => String(text(arg, false))).join(" ")
        return console.error(`nodepass: ${line.replaceAll(/\s+/g, " ").trim()}`)
      }
    })
  })

/** What fails because of the machine; all else is the command line's fault. */
const runtime: ReadonlySet<string> = new Set(["CertificateError", "OperatorError", "StoreError", "TransportError"])

/** What is wrong goes to standard error in one line, and into the exit code. */
const report = (cause: Cause.Cause<Cli.CliError | Settings.SettingsError>): Effect.Effect<void> => {
  const exit = (code: 1 | 2) => Effect.sync(() => process.exit(code))
  if (Cause.isInterruptedOnly(cause)) return Effect.interrupt
  return Option.match(Cause.failureOption(cause), {
    onNone: () => Effect.zipRight(Console.error(`a defect: ${Cause.pretty(cause)}`), exit(1)),
    onSome: (error) => {
      // @effect/cli has said what is wrong.
      if (ValidationError.isValidationError(error)) return exit(2)
      return Effect.zipRight(Console.error(error.message), exit(runtime.has(error._tag) ? 1 : 2))
    }
  })
}

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

const machine = Layer.merge(
  NodeContext.layer,
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
  Effect.provide(Layer.provideMerge(machine, Settings.layerFromEnv)),
  Effect.provideService(Cli.Host, host),
  Effect.catchAllCause(report),
  Effect.provide(NodeLog.layer()),
  plainly,
  NodeRuntime.runMain({ disableErrorReporting: true, disablePrettyLogger: true })
)
