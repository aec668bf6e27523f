/**
 * What the command does in a process of Node: serve, show, export. Modules that a tunnel does not need are imported late.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import process from "node:process"
import * as Cli from "../../cli/Cli.js"
import { Host } from "../../cli/Host.js"
import * as LogLine from "../../core/LogLine.js"
import { StoreError } from "../../master/InstanceStore.js"
import * as Package from "../Package.js"
import * as Hangup from "./Hangup.js"
import * as StandardInput from "./StandardInput.js"
import * as StandardOutput from "./StandardOutput.js"
import * as StatusLine from "./StatusLine.js"
import * as Telemetry from "./Telemetry.js"

const { version } = Schema.decodeUnknownSync(Schema.parseJson(Schema.Struct({ version: Schema.String })))(
  readFileSync(join(Package.folder, "package.json"), "utf8")
)

export const host = Host.of({
  version,
  reloads: Hangup.reloads,
  logReloads: Hangup.log,
  readLine: StandardInput.line({ limit: 1_048_576 }),
  prepare: ({ log, title }) => {
    // Overwrites the arguments that `ps` shows, the key among them.
    process.title = `nodepass ${title}`
    const level =
      Cli.logLevelOf(process.argv) !== undefined ? Layer.empty : Logger.minimumLogLevel(LogLine.minimum(log))
    return Layer.provideMerge(Telemetry.layer({ version }), level)
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
        }).pipe(withHangups, Effect.provide(Telemetry.layer({ version })))
    ),
  master: (config) =>
    Effect.flatMap(
      Effect.promise(() => import("./NodeMaster.js")),
      (NodeMaster) => withHangups(NodeMaster.run({ config, version }))
    ),
  replaceApiKey: (state) =>
    Effect.flatMap(
      Effect.promise(() => import("./NodeApiKey.js")),
      (NodeApiKey) => NodeApiKey.replace(Option.some(state))
    ),
  operate: (operation) =>
    Effect.flatMap(
      Effect.promise(() =>
        Promise.all([import("../../cli/Operator.js"), import("@effect/platform-node/NodeHttpClient")])
      ),
      ([{ operate }, { layerUndici }]) => withHangups(Effect.provide(operate(operation), layerUndici))
    ),
  backup: (file, state) =>
    Effect.flatMap(loadBackup, (NodeBackup) =>
      NodeBackup.backup(state, file === "-" ? (text) => StandardOutput.write(`${text}\n`) : NodeBackup.save(file))
    ),
  restore: (file, state, options) =>
    Effect.flatMap(loadBackup, (NodeBackup) =>
      NodeBackup.restore(
        file === "-"
          ? Effect.flatMap(readInput(NodeBackup.maxBytes), (text) => NodeBackup.decode("standard input", text))
          : NodeBackup.read(file),
        state,
        options
      )
    )
})

// internal

const withHangups = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.fork(Hangup.log), (fiber) => Effect.ensuring(self, Fiber.interrupt(fiber)))

const readInput = (limit: number) =>
  Effect.mapBoth(StandardInput.all({ limit }), {
    onSuccess: (bytes) => new TextDecoder().decode(bytes),
    onFailure: ({ detail }) => new StoreError({ reason: "Unavailable", place: "standard input", detail })
  })

const loadBackup = Effect.promise(() => import("../store/NodeBackup.js"))
