/**
 * Where the tunnel key comes from: the option `--key-file`, `NP_KEY`, `NP_KEY_FILE` or the URL, and only one of them.
 */
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import type { RegularFile } from "../core/RegularFile.js"
import * as Tunnel from "../tunnel/Tunnel.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"
import type { Host } from "./Host.js"
import * as KeyFile from "./KeyFile.js"
import { UsageError } from "./UsageError.js"

/** A place outside the URL that names a key. */
export type KeySource =
  | { readonly _tag: "File"; readonly source: KeyFile.Source }
  | { readonly _tag: "Variable"; readonly key: Redacted.Redacted }

export const option = Options.text("key-file").pipe(
  Options.withPseudoName("file"),
  Options.withDescription(
    "File with the tunnel key in its first line, read again on SIGHUP; - is standard input. Environment: NP_KEY_FILE, or NP_KEY with the key itself"
  ),
  Options.optional
)

/** The option, or the variable that is set. Fails when there are two, and when a variable is empty: its key may be lost. */
export const find = (keyFile: Option.Option<string>): Effect.Effect<Option.Option<KeySource>, UsageError> =>
  Effect.gen(function* () {
    const key = yield* variable("NP_KEY")
    const file = yield* variable("NP_KEY_FILE")
    const fromFile =
      (option: KeyFile.Source["option"]) =>
      (file: string): KeySource => ({
        _tag: "File",
        source: { option, file }
      })
    const found = [
      Option.map(keyFile, fromFile("--key-file")),
      Option.map(key, (key): KeySource => ({ _tag: "Variable", key: Redacted.make(key.trim()) })),
      Option.map(file, fromFile("NP_KEY_FILE"))
    ].flatMap(Option.toArray)
    const [first, second] = found
    if (first !== undefined && second !== undefined) return yield* twice(nameOf(first), nameOf(second))
    return Option.fromNullable(first)
  })

/** What the user calls the place. */
export const nameOf = (source: KeySource): string => (source._tag === "File" ? source.source.option : "NP_KEY")

/** The config with the key. Fails when the URL has one too. */
export const apply = <Config extends TunnelConfig>(
  config: Config,
  source: Option.Option<KeySource>
): Effect.Effect<Config, KeyFile.KeyFileError | UsageError, Host | RegularFile> =>
  Effect.gen(function* () {
    if (Option.isNone(source)) return config
    if (Option.isSome(config.key)) return yield* twice(nameOf(source.value), "the URL")
    const { value } = source
    const key = value._tag === "File" ? yield* KeyFile.read(value.source) : value.key
    return { ...config, key: Option.some(key) }
  })

/** The file, unless it is standard input, which has been read. */
export const reloadable = (source: KeySource): Option.Option<KeyFile.Source> =>
  source._tag === "File" && !KeyFile.isStandardInput(source.source) ? Option.some(source.source) : Option.none()

/** Reads the file again at each element of `reloads` and replaces the tunnel's key by the one in it. */
export const follow = (
  source: KeyFile.Source,
  reloads: Stream.Stream<void>
): Effect.Effect<void, never, Host | RegularFile | Tunnel.Tunnel> =>
  Effect.gen(function* () {
    const { replaceKey } = yield* Tunnel.Tunnel
    const reload = Effect.flatMap(KeyFile.read(source), (key) => replaceKey(Option.some(key)))
    yield* Stream.runForEach(reloads, () =>
      Effect.catchAll(reload, ({ message }) => Effect.logWarning(`${message}; the tunnel key is unchanged`))
    )
  })

// internal

const variable = (name: "NP_KEY" | "NP_KEY_FILE"): Effect.Effect<Option.Option<string>, UsageError> =>
  Effect.flatMap(Effect.option(Config.string(name)), (value) =>
    Option.exists(value, (text) => text.trim() === "")
      ? new UsageError({
          argument: name,
          expected: `${name === "NP_KEY" ? "a key" : "a file"}, or no such variable; it is empty`
        })
      : Effect.succeed(value)
  )

const twice = (first: string, second: string) =>
  new UsageError({ argument: `${first} and ${second}`, expected: "the tunnel key in one of them" })
