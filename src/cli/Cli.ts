/**
 * The command line: every command, its arguments and options, and what it runs.
 */
import * as Args from "@effect/cli/Args"
import type * as CliApp from "@effect/cli/CliApp"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import type * as ValidationError from "@effect/cli/ValidationError"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { RegularFile } from "../core/RegularFile.js"
import type { WrittenFile } from "../core/WrittenFile.js"
import * as KeyText from "../tunnel/KeyText.js"
import type * as Tunnel from "../tunnel/Tunnel.js"
import * as MasterUrl from "../url/MasterUrl.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import { Host } from "./Host.js"
import * as KeySource from "./KeySource.js"
import * as MetricsAddress from "./MetricsAddress.js"
import * as Operation from "./Operation.js"
import type { OperatorError } from "./Operator.js"
import { serve, type ServeError } from "./Serve.js"
import { UsageError } from "./UsageError.js"

export type CliError = OperatorError | ServeError | ValidationError.ValidationError

/** Runs a command. The arguments are those of the process, the first two of which name the program. */
export const run = (
  argv: ReadonlyArray<string>
): Effect.Effect<void, CliError, CliApp.CliApp.Environment | Host | RegularFile | Tunnel.Environment | WrittenFile> =>
  Effect.flatMap(Host, ({ version }) => {
    // @effect/cli takes an invalid level for a subcommand.
    const level = logLevelOf(argv)
    return level === undefined || levels.includes(level.toLowerCase())
      ? withShortHelp(Command.run(command, { name: "nodepass", version })(ordered(joined(argv))))
      : new UsageError({ argument: `--log-level=${level}`, expected: `one of ${levels.join(", ")}` })
  })

/** The value of `--log-level`, which takes precedence over the URL's `log`. */
export const logLevelOf = (argv: ReadonlyArray<string>): string | undefined => {
  const at = argv.findIndex((word) => word === "--log-level" || word.startsWith("--log-level="))
  return at === -1 ? undefined : (argv[at]?.split("=")[1] ?? argv[at + 1] ?? "")
}

// internal

/** Joins `--log-level` and its value: @effect/cli takes a separate `info` for the command of that name. */
const joined = (argv: ReadonlyArray<string>): ReadonlyArray<string> => {
  const at = argv.indexOf("--log-level")
  return at === -1 ? argv : [...argv.slice(0, at), `--log-level=${argv[at + 1] ?? ""}`, ...argv.slice(at + 2)]
}

/** Moves the file `-` of a command behind its options: @effect/cli reads no option after it. */
const ordered = (argv: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [command = ""] = argv.slice(2)
  if (command !== "backup" && command !== "restore") return argv
  const words = argv.filter((word) => word !== "-")
  return [...words, ...argv.slice(words.length).map(() => "-")]
}

const levels = ["all", "trace", "debug", "info", "warning", "error", "fatal", "none"]

/** Removes the sentences that @effect/cli puts before the description of each argument and option. */
const withShortHelp = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Console.consoleWith((console) =>
    Console.withConsole(self, {
      ...console,
      log: (...args) =>
        console.log(...args.map((arg: unknown) => (typeof arg === "string" ? arg.replaceAll(typeSentence, "") : arg)))
    })
  )

const typeSentence =
  /^[ ]*(?:A user-defined piece of text|A true or false value|This option can be set from environment variables)\..*\n\n?/gm

const url = Args.text({ name: "url" }).pipe(
  Args.withDescription("server://[key@]host:port/host:port?parameters, client://... or master://host:port?parameters")
)

const serveOptions = {
  watch: Options.boolean("watch").pipe(
    Options.withDescription("Show visitors, traffic and pool all the time: in one line on a terminal, else in the log")
  ),
  keyFile: KeySource.option,
  metrics: MetricsAddress.option
}

const runCommand = Command.make("run", { url, ...serveOptions }, ({ url, ...options }) => serve(url, options)).pipe(
  Command.withDescription("Run the tunnel or the master that the URL describes; the same as `nodepass <url>`")
)

const check = Command.make("check", { url, keyFile: KeySource.option }, ({ keyFile, url }) =>
  Effect.flatMap(MasterUrl.hasScheme(url) ? reportMaster(url) : reportTunnel(url, keyFile), Console.log)
).pipe(
  Command.withDescription("Print what a URL means, defaults included, or what is wrong with it; open no connection")
)

const reportMaster = (url: string) => Effect.map(MasterUrl.parse(url), MasterUrl.report)

const reportTunnel = (url: string, keyFile: Option.Option<string>) =>
  Effect.gen(function* () {
    const config = yield* TunnelUrl.parse(url)
    return TunnelUrl.report(yield* KeySource.apply(config, yield* KeySource.find(keyFile)))
  })

const demo = Command.make("demo", { metrics: MetricsAddress.option }, ({ metrics }) =>
  Effect.flatMap(MetricsAddress.parse(metrics), (address) => Effect.flatMap(Host, ({ demo }) => demo(address)))
).pipe(Command.withDescription("Run a target, a server and a client in this process, and show the tunnel at work"))

const file = Args.text({ name: "file" }).pipe(
  Args.withDescription(
    "Backup of a master's state: a JSON file, which contains every tunnel key; - is standard output or input"
  )
)

/** Where a master has its state. */
const stateOption = (description: string) =>
  Options.text("state").pipe(
    Options.withPseudoName("place"),
    Options.withDescription(description),
    Options.map(Redacted.make),
    Options.optional
  )

const state = stateOption(
  "State of the master, as in its URL: a folder or postgres://...; if not given, the folder NP_STATE_DIR"
)

const backup = Command.make("backup", { file, state }, ({ file, state }) =>
  Effect.flatMap(Host, ({ backup }) => backup(file, state))
).pipe(Command.withDescription("Write the state of a master to a file; the master may be running"))

const force = Options.boolean("force").pipe(Options.withDescription("Replace the state even if it has instances"))

const restore = Command.make("restore", { file, state, force }, ({ file, force, state }) =>
  Effect.flatMap(Host, ({ restore }) => restore(file, state, { force }))
).pipe(Command.withDescription("Replace the state of a master by a backup; the master must not be running"))

const keyState = stateOption(
  "Replace the API key of the master that has its state there (a folder or postgres://...) and print the new one"
)

const key = Command.make("key", { state: keyState }, ({ state }) =>
  Option.match(state, {
    onNone: () => Effect.flatMap(KeyText.generate, (key) => Console.log(Redacted.value(key))),
    onSome: (place) => Effect.flatMap(Host, ({ replaceApiKey }) => replaceApiKey(place))
  })
).pipe(
  Command.withDescription(
    "Print a fresh tunnel key, for both sides of a tunnel; with --state, a new API key of a master, which may be running"
  )
)

const command = Command.make("nodepass", { url: Args.optional(url), ...serveOptions }, ({ url, ...options }) =>
  Effect.flatMap(
    Effect.mapError(
      url,
      () => new UsageError({ argument: "<url>", expected: 'a URL, e.g. nodepass "server://key@:10101/:8080"' })
    ),
    (url) => serve(url, options)
  )
).pipe(
  Command.withDescription(
    HelpDoc.p("TCP and UDP tunnels: reach a service behind NAT, or forward a port, through a pool of open connections.")
  ),
  Command.withSubcommands([
    runCommand,
    check,
    demo,
    key,
    backup,
    restore,
    ...Operation.commands((operation) => Effect.flatMap(Host, ({ operate }) => operate(operation)))
  ])
)
