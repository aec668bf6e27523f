/**
 * The master that commands operate, and its API key: from options, the environment, or a file saved by
 * `nodepass profile`.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as MasterClient from "../master/MasterClient.js"
import type { Operation } from "./Operation.js"

/** No master or no key is known. */
export class ProfileError extends Schema.TaggedError<ProfileError>()("ProfileError", {
  option: Schema.Literal("--master", "--key"),
  /** As it was given; empty when there is none. Never a key. */
  value: Schema.String
}) {
  override get message(): string {
    const given = `${this.option}${this.value === "" ? " is missing" : `=${this.value}`}`
    return this.option === "--key"
      ? `${given}: expected the API key in --key, NP_API_KEY or nodepass profile`
      : `${given}: expected the URL of the API, e.g. http://127.0.0.1:9090/api/v1, in --master, NP_MASTER or nodepass profile`
  }
}

/** The options of the operation, else the environment, else the saved profile. */
export const load = ({
  key,
  master
}: Pick<Operation, "key" | "master">): Effect.Effect<
  MasterClient.Options,
  ProfileError,
  FileSystem.FileSystem | Path.Path
> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const saved = yield* Effect.option(Effect.flatMap(Effect.flatMap(file, fs.readFileString), Schema.decode(Saved)))
    const url = Option.firstSomeOf([
      master,
      yield* Effect.option(Config.nonEmptyString("NP_MASTER")),
      Option.map(saved, ({ master }) => master)
    ])
    const secret = Option.firstSomeOf([
      key,
      Option.map(yield* Effect.option(Config.nonEmptyString("NP_API_KEY")), Redacted.make),
      Option.map(saved, ({ key }) => Redacted.make(key))
    ])
    if (Option.isNone(url) || !/^https?:\/\//.test(url.value)) {
      return yield* new ProfileError({ option: "--master", value: Option.getOrElse(url, () => "") })
    }
    if (Option.isNone(secret)) return yield* new ProfileError({ option: "--key", value: "" })
    return { url: url.value, key: secret.value }
  })

/** Writes the file. Only this user may read it, because it contains the key. */
export const save = ({ key, url }: MasterClient.Options) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const name = yield* file
    yield* fs.makeDirectory(path.dirname(name), { recursive: true, mode: 0o700 })
    // A new file: an existing one keeps its mode.
    yield* fs.remove(name, { force: true })
    const text = yield* Schema.encode(Saved)({ master: url, key: Redacted.value(key) })
    yield* fs.writeFileString(name, text, { mode: 0o600, flag: "wx" })
    yield* Console.log(`saved in ${name}`)
  })

// internal

const Saved = Schema.parseJson(Schema.Struct({ master: Schema.String, key: Schema.String }))

const file = Effect.gen(function* () {
  const path = yield* Path.Path
  const home = yield* Config.withDefault(Config.string("HOME"), ".")
  const base = yield* Config.withDefault(Config.nonEmptyString("XDG_CONFIG_HOME"), path.join(home, ".config"))
  return path.join(base, "nodepass", "profile.json")
})
