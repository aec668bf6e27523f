/**
 * The command line: what each word means, as layers put together.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as HelpDoc from "@effect/cli/HelpDoc"
import type * as CliApp from "@effect/cli/CliApp"
import type * as ValidationError from "@effect/cli/ValidationError"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import type { StoreError } from "../master/InstanceStore.js"
import type { Address } from "../core/Address.js"
import type { Level } from "../core/LogLine.js"
import * as MasterUrl from "../url/MasterUrl.js"
import * as MetricsAddress from "./MetricsAddress.js"
import * as Operation from "./Operation.js"
import type { OperatorError } from "./Operator.js"
import type * as Runner from "../tunnel/Runner.js"
import type { TransportError } from "../transport/Transport.js"
import * as Tunnel from "../tunnel/Tunnel.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import { UsageError } from "./UsageError.js"

/** What the command needs of the process it runs in. */
export class Host extends Context.Tag("nodepass/Cli/Host")<
  Host,
  {
    readonly version: string
    /** Emits each time that the process is told to read its files again. */
    readonly reloads: Stream.Stream<void>
    /** Makes the process this tunnel's: its log, and its title, which would show the key as it was typed. */
    readonly prepare: (config: { readonly log: Level; readonly title: string }) => Layer.Layer<never>
    /** Shows how the tunnel is doing until it is interrupted. */
    readonly watch: (tunnel: Tunnel.Tunnel["Type"]) => Effect.Effect<void>
    /** Serves /metrics and /health at the address, from before the tunnel opens until after its end. */
    readonly serveMetrics: <E, R>(
      address: Address,
      tunnel: Layer.Layer<Tunnel.Tunnel, E, R>
    ) => Layer.Layer<Tunnel.Tunnel, E | TransportError, R>
    /** The demonstration: a target, a server and a client in this process, whose metrics are served if there is an address. */
    readonly demo: (metrics: Option.Option<Address>) => Effect.Effect<void, Runner.OpenError, Tunnel.Environment>
    /** A master, until it is interrupted. */
    readonly master: (
      config: MasterUrl.MasterConfig
    ) => Effect.Effect<void, Runner.OpenError | StoreError, Tunnel.Environment>
    /** Writes what a master keeps into a file. */
    readonly backup: (file: string, state: Option.Option<Redacted.Redacted>) => Effect.Effect<void, StoreError>
    /** Puts what is in the file in the place of what a master keeps; `force`: also where it keeps something. */
    readonly restore: (
      file: string,
      state: Option.Option<Redacted.Redacted>,
      options: { readonly force: boolean }
    ) => Effect.Effect<void, StoreError>
    /** Asks a master, and prints what it says. */
    readonly operate: (operation: Operation.Operation) => Effect.Effect<void, OperatorError, CliApp.CliApp.Environment>
  }
>() {}

export type CliError = OperatorError | Runner.OpenError | StoreError | UsageError | ValidationError.ValidationError

/** Runs the command. `argv` is the process's, the program's two words included. */
export const run = (
  argv: ReadonlyArray<string>
): Effect.Effect<void, CliError, CliApp.CliApp.Environment | Host | Tunnel.Environment> =>
  Effect.flatMap(Host, ({ version }) => {
    // @effect/cli takes a level that it does not know for a subcommand.
    const level = logLevelOf(argv)
    return level === undefined || levels.includes(level.toLowerCase())
      ? Command.run(command, { name: "nodepass", version })(joined(argv))
      : new UsageError({ expected: `--log-level to be one of ${levels.join(", ")}, not ${level}` })
  })

/** The value of `--log-level`, when it is given: it stands above the URL's `log`. */
export const logLevelOf = (argv: ReadonlyArray<string>): string | undefined => {
  const at = argv.findIndex((word) => word === "--log-level" || word.startsWith("--log-level="))
  return at === -1 ? undefined : (argv[at]?.split("=")[1] ?? argv[at + 1] ?? "")
}

// internal

/** Its value belongs to it: @effect/cli would take `info` for the command of that name. */
const joined = (argv: ReadonlyArray<string>): ReadonlyArray<string> => {
  const at = argv.indexOf("--log-level")
  return at === -1 ? argv : [...argv.slice(0, at), `--log-level=${argv[at + 1] ?? ""}`, ...argv.slice(at + 2)]
}

const levels = ["all", "trace", "debug", "info", "warning", "error", "fatal", "none"]

const url = Args.text({ name: "url" }).pipe(
  Args.withDescription("server://[key@]host:port/host:port?parameters, client://... or master://host:port?parameters")
)

const watch = Options.boolean("watch").pipe(
  Options.withDescription("Shows visitors, traffic and pool as they are now: a line drawn over on a terminal")
)

const keyFile = Options.text("key-file").pipe(
  Options.withDescription(
    "A file whose first line is the tunnel's key, in place of the one in the URL; read again at SIGHUP (also: NP_KEY_FILE)"
  ),
  Options.withFallbackConfig(Config.string("NP_KEY_FILE")),
  Options.optional
)

const metrics = MetricsAddress.option

/** The first line of the file. */
const readKey = (file: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const text = yield* Effect.mapError(
      fs.readFileString(file),
      () => new UsageError({ expected: `--key-file=${file} to be a file that can be read` })
    )
    const [line = ""] = text.split("\n", 1)
    return line.trim() === ""
      ? yield* new UsageError({ expected: `--key-file=${file} to have a key in its first line` })
      : Option.some(Redacted.make(line.trim()))
  })

/** Puts the file's key in force each time that the process is told to. */
const followKey = (file: string) =>
  Effect.gen(function* () {
    const { reloads } = yield* Host
    const { replaceKey } = yield* Tunnel.Tunnel
    const reload = Effect.flatMap(readKey(file), (key) => replaceKey(key))
    yield* Stream.runForEach(reloads, () =>
      Effect.catchAll(reload, ({ message }) => Effect.logWarning(`the tunnel key stays as it is: ${message}`))
    )
  })

interface ServeOptions {
  readonly watch: boolean
  readonly keyFile: Option.Option<string>
  readonly metrics: Option.Option<string>
}

const serve = (text: string, options: ServeOptions) =>
  Effect.gen(function* () {
    const host = yield* Host
    if (MasterUrl.hasScheme(text)) {
      const config = yield* MasterUrl.parse(text)
      if (options.watch) return yield* new UsageError({ expected: "--watch with server:// and client:// only" })
      if (Option.isSome(options.keyFile)) {
        return yield* new UsageError({ expected: "--key-file with server:// and client:// only" })
      }
      if (Option.isSome(options.metrics)) {
        return yield* new UsageError({ expected: "--metrics with server:// and client:// only: a master has its own" })
      }
      const { log } = config
      return yield* Effect.provide(host.master(config), host.prepare({ log, title: MasterUrl.format(config) }))
    }
    const parsed = yield* TunnelUrl.parse(text)
    const metrics = yield* MetricsAddress.parse(options.metrics)
    const file = options.keyFile
    if (Option.isSome(file) && Option.isSome(parsed.key)) {
      return yield* new UsageError({ expected: "the key in the URL or in --key-file, not in both" })
    }
    const config = Option.isSome(file) ? { ...parsed, key: yield* readKey(file.value) } : parsed
    const followed = Option.match(file, {
      onNone: () => Layer.empty,
      onSome: (file) => Layer.scopedDiscard(Effect.forkScoped(followKey(file)))
    })
    const opened = Tunnel.layer(config)
    const served = Option.isSome(metrics) ? host.serveMetrics(metrics.value, opened) : opened
    const tunnel = Layer.provideMerge(followed, served)
    const watched = Layer.scopedDiscard(Effect.forkScoped(Effect.flatMap(Tunnel.Tunnel, host.watch)))
    const layer = options.watch ? Layer.provideMerge(watched, tunnel) : tunnel
    return yield* Effect.provide(
      Layer.launch(layer),
      host.prepare({ log: config.log, title: TunnelUrl.format(config) })
    )
  })

const runCommand = Command.make("run", { url, watch, keyFile, metrics }, ({ url, ...options }) =>
  serve(url, options)
).pipe(Command.withDescription("Runs what the URL says until it is told to stop; `nodepass <url>` does the same"))

const check = Command.make("check", { url }, ({ url }) =>
  Effect.flatMap(
    MasterUrl.hasScheme(url)
      ? Effect.map(MasterUrl.parse(url), MasterUrl.report)
      : Effect.map(TunnelUrl.parse(url), TunnelUrl.report),
    Console.log
  )
).pipe(
  Command.withDescription("Says what a URL means, every default spelled out, or what is wrong with it; opens nothing")
)

const demo = Command.make("demo", { metrics }, ({ metrics }) =>
  Effect.flatMap(MetricsAddress.parse(metrics), (address) => Effect.flatMap(Host, ({ demo }) => demo(address)))
).pipe(
  Command.withDescription("Starts a target, a server and a client here, and shows the tunnel between them at work")
)

const file = Args.text({ name: "file" }).pipe(Args.withDescription("The backup, a file of JSON with every key in it"))

const state = Options.text("state").pipe(
  Options.withDescription("Where the master keeps its state, as in its URL: a folder, or postgres://..."),
  Options.map(Redacted.make),
  Options.optional
)

const backup = Command.make("backup", { file, state }, ({ file, state }) =>
  Effect.flatMap(Host, ({ backup }) => backup(file, state))
).pipe(Command.withDescription("Writes what a master keeps into a file, also while it runs"))

const force = Options.boolean("force").pipe(Options.withDescription("Also where the master keeps something already"))

const restore = Command.make("restore", { file, state, force }, ({ file, force, state }) =>
  Effect.flatMap(Host, ({ restore }) => restore(file, state, { force }))
).pipe(Command.withDescription("Puts a backup in the place of what a master keeps, while it does not run"))

const command = Command.make("nodepass", { url: Args.optional(url), watch, keyFile, metrics }, ({ url, ...options }) =>
  Effect.flatMap(
    Effect.mapError(url, () => new UsageError({ expected: 'a URL, e.g. nodepass "server://key@:10101/:8080"' })),
    (url) => serve(url, options)
  )
).pipe(
  Command.withDescription(
    HelpDoc.p("Tunnels: reach a service behind NAT, or forward a port, through a pool of warm connections.")
  ),
  Command.withSubcommands([
    runCommand,
    check,
    demo,
    backup,
    restore,
    ...Operation.commands((operation) => Effect.flatMap(Host, ({ operate }) => operate(operation)))
  ])
)
