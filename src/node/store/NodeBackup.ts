/**
 * Backups of a master's state as files, and the commands `nodepass backup` and `nodepass restore`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Fs from "node:fs"
import * as Path from "node:path"
import process from "node:process"
import * as RegularFile from "../../core/RegularFile.js"
import { type Backup, BackupText, InstanceStore, StoreError } from "../../master/InstanceStore.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as Directory from "./Directory.js"
import * as NodeState from "./NodeState.js"
import * as Sqlite from "./Sqlite.js"

/** Reads a backup. Fails with `Unavailable` when the file cannot be read, with `Corrupt` when it is not a backup. */
export const read = (file: string): Effect.Effect<Backup, StoreError> =>
  NodeRegularFile.read(file, { limit: maxBytes, deadline: Duration.minutes(1) }).pipe(
    Effect.mapBoth({
      onSuccess: RegularFile.text,
      onFailure: ({ detail }) =>
        new StoreError({ reason: "Unavailable", place: file, detail: `cannot be read: ${detail}` })
    }),
    Effect.flatMap(Schema.decode(BackupText)),
    Effect.mapError((error) =>
      error._tag === "StoreError"
        ? error
        : new StoreError({ reason: "Corrupt", place: file, detail: "not a backup of a nodepass master" })
    )
  )

/** Writes a backup of the store, atomically. It contains tunnel keys, so only this user may read it. */
export const write = (file: string): Effect.Effect<void, StoreError, InstanceStore> =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    // The store's own data always fits its schema.
    const text = yield* Effect.orDie(Schema.encode(BackupText)(yield* store.backup))
    const temporary = `${file}.${process.pid}`
    yield* Effect.tryPromise({
      try: async () => {
        Directory.make(Path.dirname(Directory.resolve(file)))
        const handle = await Fs.promises.open(temporary, "w", 0o600)
        await handle.writeFile(text)
        await handle.sync()
        await handle.close()
        await Fs.promises.rename(temporary, file)
      },
      catch: (cause) => new StoreError({ reason: "Unavailable", place: file, detail: Sqlite.reasonOf(cause) })
    })
  })

/** The command `nodepass backup`. Works while a master uses the state. */
export const backup = (file: string, place: NodeState.Place): Effect.Effect<void, StoreError> =>
  Effect.provide(write(file), NodeState.layer(place, { purpose: "shared" }))

/** The command `nodepass restore`. Fails when the state has instances, unless `force`. */
export const restore = (
  file: string,
  place: NodeState.Place,
  { force }: { readonly force: boolean }
): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const backup = yield* read(file)
    const store = yield* InstanceStore
    const { length } = yield* store.list
    if (length > 0 && !force) {
      const detail = `it has ${length} instances; use --force to replace them`
      return yield* new StoreError({ reason: "Unavailable", place: yield* NodeState.describe(place), detail })
    }
    yield* store.restore(backup)
  }).pipe(Effect.provide(NodeState.layer(place, { purpose: "restore" })))

// internal

/** Most bytes of a backup: ten times what 10,000 instances with ten versions each have. */
const maxBytes = 256 * 1_048_576
