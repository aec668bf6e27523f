/**
 * The master that commands operate, and its API key: from options, the environment, or a file saved by
 * `nodepass profile`.
 */
import * as Path from "@effect/platform/Path"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as RegularFile from "../core/RegularFile.js"
import { WrittenFile } from "../core/WrittenFile.js"
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

/** No environment variable names a folder for the profile. */
export class NoHome extends Schema.TaggedError<NoHome>()("NoHome", {}) {
  override get message(): string {
    return "profile: expected the folder for it in XDG_CONFIG_HOME or HOME"
  }
}

/** There is a profile, but it cannot be used. */
export class NotLoaded extends Schema.TaggedError<NotLoaded>()("NotLoaded", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `profile ${this.file}: ${this.detail}; nodepass profile writes a new one`
  }
}

/** The profile cannot be written. */
export class NotSaved extends Schema.TaggedError<NotSaved>()("NotSaved", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `profile ${this.file}: cannot be saved: ${this.detail}`
  }
}

/** The options of the operation, else the environment, else the saved profile, which is read only if it is needed. */
export const load = ({
  key,
  master
}: Pick<Operation, "key" | "master">): Effect.Effect<
  MasterClient.Options,
  NotLoaded | ProfileError,
  Path.Path | RegularFile.RegularFile
> =>
  Effect.gen(function* () {
    const givenUrl = Option.firstSomeOf([master, yield* Effect.option(Config.nonEmptyString("NP_MASTER"))])
    const givenKey = Option.firstSomeOf([
      key,
      Option.map(yield* Effect.option(Config.nonEmptyString("NP_API_KEY")), Redacted.make)
    ])
    const saved = Option.isSome(givenUrl) && Option.isSome(givenKey) ? Option.none() : yield* read
    const url = Option.orElse(givenUrl, () => Option.map(saved, ({ master }) => master))
    const secret = Option.orElse(givenKey, () => Option.map(saved, ({ key }) => Redacted.make(key)))
    if (Option.isNone(url) || !/^https?:\/\//.test(url.value)) {
      return yield* new ProfileError({ option: "--master", value: Option.getOrElse(url, () => "") })
    }
    if (Option.isNone(secret)) return yield* new ProfileError({ option: "--key", value: "" })
    return { url: url.value, key: secret.value }
  })

/** Writes the file. Only this user may read it, because it contains the key. */
export const save = ({ key, url }: MasterClient.Options) =>
  Effect.gen(function* () {
    const { write } = yield* WrittenFile
    const name = yield* Effect.mapError(file, () => new NoHome())
    const text = yield* Schema.encode(Saved)({ master: url, key: Redacted.value(key) })
    yield* Effect.mapError(write(name, text), ({ detail }) => new NotSaved({ file: name, detail }))
    yield* Console.log(`saved in ${name}`)
  })

// internal

const Saved = Schema.parseJson(Schema.Struct({ master: Schema.String, key: Schema.String }))

const file = Effect.gen(function* () {
  const path = yield* Path.Path
  const base = yield* Config.orElse(Config.nonEmptyString("XDG_CONFIG_HOME"), () =>
    Config.map(Config.nonEmptyString("HOME"), (home) => path.join(home, ".config"))
  )
  return path.join(base, "nodepass", "profile.json")
})

/** The profile; `None` when there is none. */
const read = Effect.gen(function* () {
  const { read } = yield* RegularFile.RegularFile
  const name = yield* Effect.option(file)
  if (Option.isNone(name)) return Option.none()
  const fail = (detail: string) => new NotLoaded({ file: name.value, detail })
  const content = yield* Effect.catchAll(Effect.asSome(read(name.value)), ({ detail, reason }) =>
    reason === "NotFound" ? Effect.succeedNone : fail(`cannot be read: ${detail}`)
  )
  if (Option.isNone(content)) return Option.none()
  return yield* Schema.decode(Saved)(RegularFile.text(content.value)).pipe(
    Effect.mapBoth({ onSuccess: Option.some, onFailure: () => fail("it is damaged") })
  )
})
