/**
 * The commands that operate a master through its API: their arguments and options.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

export type Action =
  | { readonly _tag: "List" }
  | { readonly _tag: "Get" | "Versions"; readonly id: string }
  | ({ readonly _tag: "Remove"; readonly id: string } & Conditional)
  | { readonly _tag: "Create"; readonly url: string; readonly alias: Option.Option<string> }
  | ({
      readonly _tag: "Act"
      readonly id: string
      readonly action: "start" | "stop" | "restart" | "reset"
    } & Conditional)
  | ({
      readonly _tag: "Set"
      readonly id: string
      readonly url: Option.Option<string>
      readonly alias: Option.Option<string>
      readonly restart: Option.Option<boolean>
    } & Conditional)
  | { readonly _tag: "Logs"; readonly id: string; readonly follow: boolean }
  | ({ readonly _tag: "Rollback"; readonly id: string; readonly version: number } & Conditional)
  | { readonly _tag: "Events" | "Info" }
  | { readonly _tag: "SaveProfile" }
  | { readonly _tag: "Tcping"; readonly target: string }

interface Conditional {
  /** The version that the instance must have. Defaults to any. */
  readonly ifVersion: Option.Option<number>
}

export interface Operation {
  readonly action: Action
  /** URL of the API. Defaults to `NP_MASTER`, then the saved profile. */
  readonly master: Option.Option<string>
  /** Defaults to `NP_API_KEY`, then the saved profile. */
  readonly key: Option.Option<Redacted.Redacted>
  /** Whether to print the API's response as JSON instead of a table. */
  readonly json: boolean
}

/** The commands, each of which calls `operate`. */
export const commands = <E, R>(operate: (operation: Operation) => Effect.Effect<void, E, R>) => {
  const leaf = <const Name extends string, Config extends Command.Command.Config>(
    name: Name,
    description: string,
    config: Config,
    action: (values: Command.Command.ParseConfig<{ readonly rest: Config }>["rest"]) => Action
  ) =>
    Command.make(name, { ...common, rest: config }, ({ json, key, master, rest }) =>
      operate({ action: action(rest), master, key, json })
    ).pipe(Command.withDescription(description))

  const act = <const Name extends "start" | "stop" | "restart" | "reset">(name: Name, description: string) =>
    leaf(name, description, { ifVersion, id }, ({ id, ifVersion }) => ({ _tag: "Act", id, action: name, ifVersion }))

  const instances = Command.make("instances").pipe(
    Command.withDescription("Manage the instances of a master: its tunnels"),
    Command.withSubcommands([
      leaf("list", "List all instances", {}, () => ({ _tag: "List" })),
      leaf("get", "Show every field of an instance", { id }, ({ id }) => ({ _tag: "Get", id })),
      leaf("create", "Create an instance and start it", { alias, url }, ({ alias, url }) => ({
        _tag: "Create",
        url,
        alias
      })),
      act("start", "Start an instance"),
      act("stop", "Stop an instance; its visitors may finish"),
      act("restart", "Stop an instance and start it again"),
      act("reset", "Set the traffic of an instance to zero"),
      leaf(
        "set",
        "Change the URL, alias or restart policy of an instance",
        { url: newUrl, alias, restart, ifVersion, id },
        ({ alias, id, ifVersion, restart, url }) => ({ _tag: "Set", id, url, alias, restart, ifVersion })
      ),
      leaf("rm", "Stop an instance and delete it", { ifVersion, id }, ({ id, ifVersion }) => ({
        _tag: "Remove",
        id,
        ifVersion
      })),
      leaf("logs", "Print the last log lines of an instance", { follow, id }, ({ follow, id }) => ({
        _tag: "Logs",
        id,
        follow
      })),
      leaf("versions", "List the URLs of an instance, newest first", { id }, ({ id }) => ({ _tag: "Versions", id })),
      leaf("rollback", "Set the URL of an earlier version again", { ifVersion, id, version }, (given) => ({
        _tag: "Rollback",
        ...given
      }))
    ])
  )
  return [
    instances,
    leaf("events", "Print the events of a master as they occur", {}, () => ({ _tag: "Events" })),
    leaf("info", "Show a master and the machine that it runs on", {}, () => ({ _tag: "Info" })),
    leaf("tcping", "Check whether a master can connect to an address", { target }, ({ target }) => ({
      _tag: "Tcping",
      target
    })),
    leaf("profile", "Save --master and --key for later commands", {}, () => ({ _tag: "SaveProfile" }))
  ] as const
}

// internal

const common = {
  master: Options.text("master").pipe(
    Options.withPseudoName("url"),
    Options.withDescription(
      "URL of the API, e.g. http://127.0.0.1:9090/api/v1; if not given, NP_MASTER or the saved profile"
    ),
    Options.optional
  ),
  key: Options.text("key").pipe(
    Options.withPseudoName("key"),
    Options.withDescription(
      "API key; if not given, NP_API_KEY or the saved profile. Other users of this machine can see command lines"
    ),
    Options.map(Redacted.make),
    Options.optional
  ),
  json: Options.boolean("json").pipe(Options.withDescription("Print the response of the API as JSON"))
}
const id = Args.text({ name: "id" }).pipe(Args.withDescription("Id of the instance, see `instances list`"))
const url = Args.text({ name: "url" }).pipe(Args.withDescription("server://... or client://..., see `nodepass --help`"))
const version = Args.integer({ name: "version" }).pipe(
  Args.withDescription("Number of the version, see `instances versions`")
)
const ifVersion = Options.integer("if-version").pipe(
  Options.withPseudoName("number"),
  Options.withDescription("Change the instance only if this is its version, as `instances get` shows it"),
  Options.optional
)
const target = Args.text({ name: "host:port" }).pipe(Args.withDescription("Address to connect to"))
const newUrl = Options.text("url").pipe(
  Options.withPseudoName("url"),
  Options.withDescription("New URL; the instance is restarted"),
  Options.optional
)
const alias = Options.text("alias").pipe(
  Options.withPseudoName("name"),
  Options.withDescription("Name of the instance, for people"),
  Options.optional
)
const follow = Options.boolean("follow").pipe(
  Options.withAlias("f"),
  Options.withDescription("Print new lines as they are logged")
)
const restart = Options.choiceWithValue("restart", [
  ["yes", true],
  ["no", false]
]).pipe(
  Options.withDescription("Whether to start the instance with the master, and again after it failed"),
  Options.optional
)
