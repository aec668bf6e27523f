/**
 * Where a master's state is: a folder with an SQLite file, or a PostgreSQL database.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Path from "node:path"
import type { InstanceStore, StoreError } from "../../master/InstanceStore.js"
import { masked } from "../../url/UrlError.js"
import * as Postgres from "./Postgres.js"
import * as SqlInstanceStore from "./SqlInstanceStore.js"
import * as StateFolder from "./StateFolder.js"

/** A folder or a `postgres://` URL; `None` is the default folder: see `StateFolder`. */
export type Place = Option.Option<Redacted.Redacted>

export interface Options {
  /**
   * `master`: uses the state alone, until the scope closes. `shared`: beside a running master; the state must exist.
   * `restore`: like `master`, and accepts a folder that has only a backup. Defaults to `master`.
   */
  readonly purpose?: "master" | "shared" | "restore" | undefined
}

/**
 * The store at the place, created if missing.
 *
 * Fails with `Locked` when another process uses it, with `Corrupt` when it is damaged, and with `Newer` when a later
 * version wrote it. It is unchanged then.
 */
export const layer = (place: Place, options?: Options): Layer.Layer<InstanceStore, StoreError> =>
  Layer.unwrapScoped(
    Effect.gen(function* () {
      const purpose = options?.purpose ?? "master"
      const url = Option.filter(place, isPostgres)
      if (Option.isSome(url)) {
        const shown = masked(Redacted.value(url.value))
        const client = Postgres.layer({ url: url.value, place: shown, exclusive: purpose !== "shared" })
        return SqlInstanceStore.layer({ place: shown }).pipe(Layer.provide(client))
      }
      const path = yield* folder(place)
      return yield* purpose === "shared"
        ? StateFolder.openShared(path)
        : StateFolder.open(path, { ignoreBackup: purpose === "restore" })
    })
  )

/** The file that a master writes its backups to: in the folder of its state, for PostgreSQL in the default folder. */
export const backupFile = (place: Place): Effect.Effect<string, StoreError> =>
  Effect.map(folder(place), (folder) =>
    Path.join(folder, Option.exists(place, isPostgres) ? "postgres-backup.json" : "backup.json")
  )

/** The place as errors show it: without a password. */
export const describe = (place: Place): Effect.Effect<string, StoreError> =>
  Option.match(Option.filter(place, isPostgres), {
    onNone: () => folder(place),
    onSome: (url) => Effect.succeed(masked(Redacted.value(url)))
  })

// internal

const isPostgres = (place: Redacted.Redacted): boolean => /^postgres(ql)?:\/\//i.test(Redacted.value(place))

const folder = (place: Place): Effect.Effect<string, StoreError> =>
  Option.match(
    Option.filter(place, (place) => !isPostgres(place)),
    {
      onSome: (place) => StateFolder.resolve(Redacted.value(place)),
      onNone: () => StateFolder.fromEnvironment
    }
  )
