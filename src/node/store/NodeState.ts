/**
 * Where a master's state is: a folder with an SQLite file and its backups, or a PostgreSQL database.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { type Backup, BackupText, InstanceStore, StoreError } from "../../master/InstanceStore.js"
import { masked } from "../../url/UrlError.js"
import * as Postgres from "./Postgres.js"
import * as Sqlite from "./Sqlite.js"
import * as SqlInstanceStore from "./SqlInstanceStore.js"

/** As the master's URL has it, or `NP_STATE_DIR`, or the system's place for such things. */
export type Place = Option.Option<Redacted.Redacted>

/** Where a master writes its backups: beside what it keeps, or for PostgreSQL in the folder of the environment. */
export const backupFile = (place: Place): Effect.Effect<string> =>
  Effect.map(folder(place), (folder) =>
    Path.join(folder, Option.exists(place, isPostgres) ? "postgres-backup.json" : "backup.json")
  )

export interface Options {
  /** Only to look, beside a master that may have it; there must be something there. Defaults to false. */
  readonly beside?: boolean | undefined
  /** A backup is about to be brought back, so that one lying there is no reason to wait. Defaults to false. */
  readonly restoring?: boolean | undefined
}

/**
 * The store at the place, made when there is none, and this process's alone until the scope closes.
 *
 * Fails when another process has it, and when what is there is damaged or a later version's: nothing is changed then.
 */
export const layer = (place: Place, options?: Options): Layer.Layer<InstanceStore, StoreError> =>
  Layer.unwrapScoped(
    Effect.gen(function* () {
      if (Option.isSome(place) && isPostgres(place.value)) {
        const url = place.value
        const client = Postgres.layer({ url, place: shownUrl(url), alone: options?.beside !== true })
        return SqlInstanceStore.layer({ place: shownUrl(url) }).pipe(Layer.provide(client))
      }
      const own = yield* folder(place)
      return store(yield* options?.beside === true ? existing(own) : prepare(own, options?.restoring ?? false))
    })
  )

/** Reads a backup. Fails with `Unavailable` for a file that cannot be read, with `Corrupt` for one that is none. */
export const readBackup = (file: string): Effect.Effect<Backup, StoreError> =>
  Effect.tryPromise({
    try: () => Fs.promises.readFile(file, "utf8"),
    catch: (cause) => new StoreError({ reason: "Unavailable", place: file, detail: Sqlite.reasonOf(cause) })
  }).pipe(
    Effect.flatMap(Schema.decode(BackupText)),
    Effect.mapError((error) =>
      error._tag === "StoreError"
        ? error
        : new StoreError({ reason: "Corrupt", place: file, detail: "it is no backup of a nodepass master" })
    )
  )

/** Writes a backup of the store, whole or not at all. It has tunnel keys in it: only this user may read it. */
export const writeBackup = (file: string): Effect.Effect<void, StoreError, InstanceStore> =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    const text = yield* Effect.orDie(Schema.encode(BackupText)(yield* store.backup))
    const next = `${file}.${process.pid}`
    yield* Effect.tryPromise({
      try: async () => {
        await Fs.promises.mkdir(Path.dirname(Path.resolve(file)), { recursive: true, mode: 0o700 })
        const handle = await Fs.promises.open(next, "w", 0o600)
        await handle.writeFile(text)
        await handle.sync()
        await handle.close()
        await Fs.promises.rename(next, file)
      },
      catch: (cause) => new StoreError({ reason: "Unavailable", place: file, detail: Sqlite.reasonOf(cause) })
    })
  })

/** What `nodepass backup` does. */
export const backup = (file: string, place: Place): Effect.Effect<void, StoreError> =>
  Effect.provide(writeBackup(file), layer(place, { beside: true }))

/** What `nodepass restore` does: nothing where there is something, unless `force`. */
export const restore = (
  file: string,
  place: Place,
  { force }: { readonly force: boolean }
): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const given = yield* readBackup(file)
    const store = yield* InstanceStore
    const { length } = yield* store.list
    if (length > 0 && !force) {
      const detail = `it has ${length} instances: expected none, or --force to forget them`
      return yield* new StoreError({ reason: "Unavailable", place: yield* shown(place), detail })
    }
    yield* store.restore(given)
  }).pipe(Effect.provide(layer(place, { restoring: true })))

// internal

/** The folder of the place: for PostgreSQL that of the environment. */
const folder = (place: Place): Effect.Effect<string> =>
  Option.match(
    Option.filter(place, (place) => !isPostgres(place)),
    {
      onSome: (place) => Effect.succeed(Path.resolve(Redacted.value(place))),
      onNone: () => environmentFolder
    }
  )

const environmentFolder = Effect.gen(function* () {
  const own = yield* Effect.option(Config.nonEmptyString("NP_STATE_DIR"))
  const system = yield* Effect.option(Config.nonEmptyString("XDG_STATE_HOME"))
  const base = Option.getOrElse(system, () => Path.join(Os.homedir(), ".local", "state"))
  return Option.getOrElse(own, () => Path.join(base, "nodepass"))
})

const shown = (place: Place): Effect.Effect<string> =>
  Option.match(Option.filter(place, isPostgres), {
    onNone: () => folder(place),
    onSome: (url) => Effect.succeed(shownUrl(url))
  })

const shownUrl = (url: Redacted.Redacted): string => masked(Redacted.value(url))

const isPostgres = (place: Redacted.Redacted): boolean => /^postgres(ql)?:\/\//i.test(Redacted.value(place))

const existing = (own: string): Effect.Effect<string, StoreError> => {
  const file = Path.join(own, "nodepass.db")
  return Fs.existsSync(file)
    ? Effect.succeed(file)
    : Effect.fail(new StoreError({ reason: "Unavailable", place: file, detail: "there is none" }))
}

/** The file, locked, there and with something in it. */
const prepare = (own: string, restoring: boolean): Effect.Effect<string, StoreError, Scope.Scope> =>
  Effect.gen(function* () {
    const file = Path.join(own, "nodepass.db")
    const fail = (reason: StoreError["reason"], place: string, detail: string) =>
      new StoreError({ reason, place, detail })
    const attempt = <A>(evaluate: () => A) =>
      Effect.try({ try: evaluate, catch: (cause) => fail("Unavailable", own, Sqlite.reasonOf(cause)) })
    yield* attempt(() => Fs.mkdirSync(own, { recursive: true, mode: 0o700 }))
    yield* Effect.mapError(Sqlite.lock(Path.join(own, "master.lock")), (error) =>
      /locked|busy/i.test(error.message)
        ? fail("Locked", own, "another master has it")
        : fail("Unavailable", own, error.message)
    )
    const size = yield* attempt(() => Fs.statSync(file, { throwIfNoEntry: false })?.size)
    if (size === 0) return yield* fail("Corrupt", file, "it is empty: bring back a backup, or remove it to begin anew")
    const backup = Path.join(own, "backup.json")
    if (size === undefined && !restoring && Fs.existsSync(backup)) {
      const detail = `it is gone, and a backup is there: nodepass restore ${backup}, or remove that to begin anew`
      return yield* fail("Corrupt", file, detail)
    }
    if (size === undefined) {
      // Elsewhere first: a file of this name is never one that is only begun.
      const begun = `${file}.new`
      yield* attempt(() => {
        for (const end of ["", "-wal", "-shm"]) Fs.rmSync(`${begun}${end}`, { force: true })
      })
      yield* Effect.scoped(Effect.asVoid(Layer.build(store(begun))))
      yield* attempt(() => Fs.renameSync(begun, file))
    }
    yield* attempt(() => Fs.chmodSync(file, 0o600))
    return file
  })

const store = (file: string) =>
  SqlInstanceStore.layer({ place: file }).pipe(
    Layer.provide(Layer.mapError(Sqlite.layer(file), (error) => damaged(file, error)))
  )

const damaged = (file: string, { message }: SqlError): StoreError =>
  /not a database|malformed|damaged|corrupt/i.test(message)
    ? new StoreError({ reason: "Corrupt", place: file, detail: `${message}; bring back a backup, see docs/master.md` })
    : new StoreError({ reason: "Unavailable", place: file, detail: message })
