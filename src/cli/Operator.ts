/**
 * Carries out what an operator asks, by the master's API, and prints what came of it.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Path from "@effect/platform/Path"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Instance, keyId, type Version } from "../master/Instance.js"
import * as MasterClient from "../master/MasterClient.js"
import { masked } from "../url/UrlError.js"
import type { Operation } from "./Operation.js"

/** It was not done. */
export class OperatorError extends Schema.TaggedError<OperatorError>()("OperatorError", { sentence: Schema.String }) {
  override get message(): string {
    return this.sentence
  }
}

export const operate = (
  operation: Operation
): Effect.Effect<void, OperatorError, FileSystem.FileSystem | HttpClient.HttpClient | Path.Path> =>
  Effect.gen(function* () {
    const { action, json } = operation
    const { key, url } = yield* profile(operation)
    if (action._tag === "SaveProfile") return yield* save({ url, key })
    const client = yield* MasterClient.make({ url, key })
    const { instances, master } = client
    const show = <A>(value: A, text: (value: A) => string) =>
      Console.log(json ? JSON.stringify(value, null, 2) : text(value))
    const path = "id" in action ? { id: action.id } : { id: "" }
    switch (action._tag) {
      case "List":
        return yield* show(yield* instances.list(), listed)
      case "Get":
        return yield* show(yield* instances.get({ path }), fields)
      case "Create": {
        const payload = { url: action.url, ...Option.match(action.alias, { onNone: () => ({}), onSome: named }) }
        return yield* show(yield* instances.create({ payload }), (instance) => listed([instance]))
      }
      case "Act":
        return yield* show(yield* instances.patch({ path, payload: { action: action.action } }), (instance) =>
          listed([instance])
        )
      case "Set": {
        const { alias, restart, url } = action
        const payload = {
          ...Option.match(alias, { onNone: () => ({}), onSome: named }),
          ...Option.match(restart, { onNone: () => ({}), onSome: (restart) => ({ restart }) })
        }
        if (Option.isNone(url) && Object.keys(payload).length === 0) {
          return yield* new OperatorError({ sentence: "set: expected --url, --alias or --restart" })
        }
        let instance = Object.keys(payload).length === 0 ? undefined : yield* instances.patch({ path, payload })
        if (Option.isSome(url)) instance = yield* instances.put({ path, payload: { url: url.value } })
        return yield* show(instance, (instance) => listed(instance === undefined ? [] : [instance]))
      }
      case "Remove":
        return yield* instances.remove({ path })
      case "Logs":
        return yield* action.follow
          ? Stream.runForEach(client.follow(action.id), Console.log)
          : Effect.flatMap(instances.logs({ path, urlParams: {} }), (text) => Console.log(text.replace(/\n$/, "")))
      case "Versions":
        return yield* show(yield* instances.versions({ path }), versions)
      case "Rollback":
        return yield* show(yield* instances.rollback({ path, payload: { version: action.version } }), (instance) =>
          listed([instance])
        )
      case "Events":
        return yield* Stream.runForEach(client.events, (event) =>
          Console.log(
            json
              ? JSON.stringify(event)
              : [event.time, event.type, event.instance?.id ?? "", event.logs || (event.instance?.status ?? "")].join(
                  "  "
                )
          )
        )
      case "Info":
        return yield* show(yield* master.info(), fields)
      case "Tcping":
        return yield* show(yield* master.tcping({ urlParams: { target: action.target } }), fields)
    }
  }).pipe(
    Effect.mapError((error) =>
      error instanceof OperatorError ? error : new OperatorError({ sentence: sentenceOf(error) })
    )
  )

// internal

const Profile = Schema.parseJson(Schema.Struct({ master: Schema.String, key: Schema.String }))

const file = Effect.gen(function* () {
  const path = yield* Path.Path
  const home = yield* Config.withDefault(Config.string("HOME"), ".")
  const base = yield* Config.withDefault(Config.nonEmptyString("XDG_CONFIG_HOME"), path.join(home, ".config"))
  return path.join(base, "nodepass", "profile.json")
})

/** From the flags, the environment, and the saved profile, in this order. */
const profile = ({ key, master }: Operation) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const saved = yield* Effect.flatMap(fs.readFileString(yield* file), Schema.decode(Profile)).pipe(Effect.option)
    const variable = (name: string) => Effect.option(Config.nonEmptyString(name))
    const [fromEnv, keyFromEnv] = yield* Effect.all([variable("NP_MASTER"), variable("NP_API_KEY")])
    const found = Option.firstSomeOf([master, fromEnv, Option.map(saved, ({ master }) => master)])
    const secret = Option.firstSomeOf([
      key,
      Option.map(keyFromEnv, Redacted.make),
      Option.map(saved, ({ key }) => Redacted.make(key))
    ])
    if (Option.isNone(found) || !/^https?:\/\//.test(found.value)) {
      return yield* new OperatorError({
        sentence: `master=${Option.getOrElse(found, () => "")}: expected the API's URL, e.g. http://127.0.0.1:9090/api/v1, by --master, NP_MASTER or nodepass profile`
      })
    }
    if (Option.isNone(secret)) {
      return yield* new OperatorError({
        sentence: "key: expected the API key, by --key, NP_API_KEY or nodepass profile"
      })
    }
    return { url: found.value, key: secret.value }
  })

/** For this user only, since the key is in it. */
const save = ({ key, url }: MasterClient.Options) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const name = yield* file
    yield* fs.makeDirectory(path.dirname(name), { recursive: true, mode: 0o700 })
    // Made anew: a file that is there keeps its mode.
    yield* fs.remove(name, { force: true })
    const text = yield* Schema.encode(Profile)({ master: url, key: Redacted.value(key) })
    yield* fs.writeFileString(name, text, { mode: 0o600, flag: "wx" })
    yield* Console.log(`saved in ${name}`)
  })

const named = (alias: string) => ({ alias })

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const listed = (instances: ReadonlyArray<Instance>): string =>
  table([
    ["ID", "ALIAS", "STATUS", "VISITORS", "POOL", "RX", "TX", "URL"],
    ...instances
      .filter(({ id }) => id !== keyId)
      .map((one) => [
        one.id,
        one.alias,
        one.status,
        String(one.tcps + one.udps),
        String(one.pool),
        String(one.tcprx + one.udprx),
        String(one.tcptx + one.udptx),
        masked(one.url) + (one.error === "" ? "" : `  (${one.error})`)
      ])
  ])

const versions = (versions: ReadonlyArray<Version>): string =>
  table([
    ["VERSION", "TIME", "URL"],
    ...versions.map(({ current, time, url, version }) => [`${version}${current ? " *" : ""}`, time, masked(url)])
  ])

const fields = (value: object): string =>
  table(Object.entries(value).map(([name, field]) => [name, typeof field === "string" ? field : JSON.stringify(field)]))

const sentenceOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "error") && typeof error.error === "string") return error.error
  if (error instanceof HttpClientError.RequestError) {
    const { origin } = new URL(error.request.url)
    return `master=${origin}: expected a master that answers there; ${causeOf(error.cause)}`
  }
  return Predicate.hasProperty(error, "message") ? String(error.message).replaceAll(/\s+/g, " ") : String(error)
}

const causeOf = (cause: unknown): string =>
  cause instanceof Error ? (cause.cause instanceof Error ? cause.cause.message : cause.message) : String(cause)
