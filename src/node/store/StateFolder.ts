/**
 * The folder with a master's state: an SQLite file, a lock file, and a backup.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { SqlError } from "@effect/sql/SqlError"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { type InstanceStore, StoreError } from "../../master/InstanceStore.js"
import * as Directory from "../file/Directory.js"
import * as Sqlite from "./Sqlite.js"
import * as SqlInstanceStore from "./SqlInstanceStore.js"

/** The default folder: `NP_STATE_DIR`, otherwise `nodepass` in the system's folder for state. */
export const fromEnvironment: Effect.Effect<string, StoreError> = Effect.gen(function* () {
  const own = yield* Effect.option(Config.nonEmptyString("NP_STATE_DIR"))
  if (Option.isSome(own)) return yield* resolve(own.value)
  const system = yield* Effect.option(Config.nonEmptyString("XDG_STATE_HOME"))
  if (Option.isSome(system)) return yield* resolve(Path.join(system.value, "nodepass"))
  const home = yield* Effect.try({
    try: Directory.home,
    catch: (cause) => unavailable("in the home folder", Sqlite.reasonOf(cause))
  })
  return yield* resolve(Path.join(home, ".local", "state", "nodepass"))
})

/** The absolute path of the folder. Fails when it is relative and the working folder has been deleted. */
export const resolve = (folder: string): Effect.Effect<string, StoreError> =>
  Effect.try({
    try: () => Directory.resolve(folder),
    catch: (cause) => unavailable(folder, Sqlite.reasonOf(cause))
  })

export interface Options {
  /** Accepts a folder with a backup and no SQLite file, because the backup will be restored. Defaults to false. */
  readonly ignoreBackup?: boolean | undefined
}

/**
 * The store in the folder, created if missing. Locks the folder until the scope closes.
 *
 * Fails with `Locked` while another process has the lock, and with `Corrupt` when the file is damaged or empty, or when
 * there is a backup and no file.
 */
export const open = (
  folder: string,
  options?: Options
): Effect.Effect<Layer.Layer<InstanceStore, StoreError>, StoreError, Scope.Scope> =>
  Effect.gen(function* () {
    const file = Path.join(folder, fileName)
    const attempt = <A>(evaluate: () => A) =>
      Effect.try({ try: evaluate, catch: (cause) => unavailable(folder, Sqlite.reasonOf(cause)) })
    yield* attempt(() => Directory.make(folder))
    yield* Effect.mapError(Sqlite.lock(Path.join(folder, "master.lock")), (error) =>
      /locked|busy/i.test(error.message)
        ? new StoreError({ reason: "Locked", place: folder, detail: "another master uses it" })
        : unavailable(folder, error.message)
    )
    const size = yield* attempt(() => Fs.statSync(file, { throwIfNoEntry: false })?.size)
    if (size === 0) {
      return yield* corrupt(file, "the file is empty; restore a backup, or delete the file to start without instances")
    }
    const backup = Path.join(folder, "backup.json")
    if (size === undefined && options?.ignoreBackup !== true && Fs.existsSync(backup)) {
      const choice = `run nodepass restore ${backup}, or delete the backup to start without instances`
      return yield* corrupt(file, `the file is missing, but there is a backup; ${choice}`)
    }
    if (size === undefined) {
      // Created under another name: a file of this name is always complete.
      const temporary = `${file}.new`
      yield* attempt(() => {
        for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(`${temporary}${suffix}`, { force: true })
      })
      yield* Effect.scoped(Effect.asVoid(Layer.build(storeOf(temporary))))
      yield* attempt(() => Fs.renameSync(temporary, file))
    }
    yield* attempt(() => Fs.chmodSync(file, 0o600))
    return storeOf(file)
  })

/** The store in the folder, without the lock: beside a master that may use it. Fails when there is none. */
export const openShared = (folder: string): Effect.Effect<Layer.Layer<InstanceStore, StoreError>, StoreError> => {
  const file = Path.join(folder, fileName)
  return Fs.existsSync(file) ? Effect.succeed(storeOf(file)) : Effect.fail(unavailable(file, "not found"))
}

// internal

const fileName = "nodepass.db"

const unavailable = (place: string, detail: string) => new StoreError({ reason: "Unavailable", place, detail })
const corrupt = (place: string, detail: string) => new StoreError({ reason: "Corrupt", place, detail })

const storeOf = (file: string) =>
  SqlInstanceStore.layer({ place: file }).pipe(
    Layer.provide(Layer.mapError(Sqlite.layer(file), (error) => toStoreError(file, error)))
  )

const toStoreError = (file: string, { message }: SqlError): StoreError =>
  /not a database|malformed|damaged|corrupt/i.test(message)
    ? corrupt(file, `${message}; restore a backup, see docs/master.md`)
    : unavailable(file, message)
