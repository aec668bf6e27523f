/**
 * What an operator asks of a master on the command line.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

/** One thing to be done, by its name. */
export type Action =
  | { readonly _tag: "List" }
  | { readonly _tag: "Get" | "Remove" | "Versions"; readonly id: string }
  | { readonly _tag: "Create"; readonly url: string; readonly alias: Option.Option<string> }
  | { readonly _tag: "Act"; readonly id: string; readonly action: "start" | "stop" | "restart" | "reset" }
  | {
      readonly _tag: "Set"
      readonly id: string
      readonly url: Option.Option<string>
      readonly alias: Option.Option<string>
      readonly restart: Option.Option<boolean>
    }
  | { readonly _tag: "Logs"; readonly id: string; readonly follow: boolean }
  | { readonly _tag: "Rollback"; readonly id: string; readonly version: number }
  | { readonly _tag: "Events" | "Info" | "SaveProfile" }
  | { readonly _tag: "Tcping"; readonly target: string }

export interface Operation {
  readonly action: Action
  /** Of the API; `NP_MASTER` unless it is given, or the saved profile's. */
  readonly master: Option.Option<string>
  /** `NP_API_KEY` unless it is given, or the saved profile's. */
  readonly key: Option.Option<Redacted.Redacted>
  /** Whether to print what the API says instead of a table. */
  readonly json: boolean
}

/** The commands of operators; `operate` carries out what they say. */
export const commands = <E, R>(operate: (operation: Operation) => Effect.Effect<void, E, R>) => {
  const leaf = <const Name extends string, Config extends Command.Command.Config>(
    name: Name,
    what: string,
    config: Config,
    action: (values: Command.Command.ParseConfig<{ readonly rest: Config }>["rest"]) => Action
  ) =>
    Command.make(name, { ...common, rest: config }, ({ json, key, master, rest }) =>
      operate({ action: action(rest), master, key, json })
    ).pipe(Command.withDescription(what))

  const act = <const Name extends "start" | "stop" | "restart" | "reset">(name: Name, what: string) =>
    leaf(name, what, { id }, ({ id }) => ({ _tag: "Act", id, action: name }))

  const instances = Command.make("instances").pipe(
    Command.withDescription("The tunnels of a master"),
    Command.withSubcommands([
      leaf("list", "All of them", {}, () => ({ _tag: "List" })),
      leaf("get", "One of them, with every field", { id }, ({ id }) => ({ _tag: "Get", id })),
      leaf("create", "Makes one and starts it", { alias, url }, ({ alias, url }) => ({ _tag: "Create", url, alias })),
      act("start", "Starts it"),
      act("stop", "Stops it; visitors may finish"),
      act("restart", "Stops and starts it"),
      act("reset", "Zeroes its traffic"),
      leaf(
        "set",
        "Gives it another URL, alias or restart policy",
        { url: newUrl, alias, restart, id },
        ({ alias, id, restart, url }) => ({ _tag: "Set", id, url, alias, restart })
      ),
      leaf("rm", "Stops and forgets it", { id }, ({ id }) => ({ _tag: "Remove", id })),
      leaf("logs", "The last lines of its log", { follow, id }, ({ follow, id }) => ({ _tag: "Logs", id, follow })),
      leaf("versions", "Each URL it had, newest first", { id }, ({ id }) => ({ _tag: "Versions", id })),
      leaf("rollback", "Gives it the URL of a version again", { id, version }, ({ id, version }) => ({
        _tag: "Rollback",
        id,
        version
      }))
    ])
  )
  return [
    instances,
    leaf("events", "What happens in a master, as it happens", {}, () => ({ _tag: "Events" })),
    leaf("info", "A master, and the machine it runs on", {}, () => ({ _tag: "Info" })),
    leaf("tcping", "Whether a master can connect to host:port", { target }, ({ target }) => ({
      _tag: "Tcping",
      target
    })),
    leaf("profile", "Saves --master and --key for the commands to come", {}, () => ({ _tag: "SaveProfile" }))
  ] as const
}

// internal

const common = {
  master: Options.text("master").pipe(
    Options.withDescription("The API, e.g. http://127.0.0.1:9090/api/v1; NP_MASTER unless it is given"),
    Options.optional
  ),
  key: Options.text("key").pipe(
    Options.withDescription("The API key; better in NP_API_KEY, since others can see command lines"),
    Options.map(Redacted.make),
    Options.optional
  ),
  json: Options.boolean("json").pipe(Options.withDescription("Prints what the API says"))
}
const id = Args.text({ name: "id" })
const url = Args.text({ name: "url" })
const version = Args.integer({ name: "version" })
const target = Args.text({ name: "host:port" })
const newUrl = Options.text("url").pipe(Options.optional)
const alias = Options.text("alias").pipe(Options.optional)
const follow = Options.boolean("follow").pipe(Options.withAlias("f"), Options.withDescription("Goes on with it"))
const restart = Options.choiceWithValue("restart", [
  ["yes", true],
  ["no", false]
]).pipe(Options.withDescription("Whether it starts with the master, and again after it broke"), Options.optional)
