/**
 * Backups of a master's state as files, and the commands `nodepass backup` and `nodepass restore`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as RegularFile from "../../core/RegularFile.js"
import { type Backup, BackupText, InstanceStore, StoreError } from "../../master/InstanceStore.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as NodeWrittenFile from "../file/NodeWrittenFile.js"
import * as NodeState from "./NodeState.js"

/** Reads a backup. Fails with `Unavailable` when the file cannot be read, with `Corrupt` when it is not a backup. */
export const read = (file: string): Effect.Effect<Backup, StoreError> =>
  NodeRegularFile.read(file, { limit: maxBytes, deadline: Duration.minutes(1) }).pipe(
    Effect.mapError(
      ({ detail }) => new StoreError({ reason: "Unavailable", place: file, detail: `cannot be read: ${detail}` })
    ),
    Effect.flatMap((content) => decode(file, RegularFile.text(content)))
  )

/** The backup in the text. Fails with `Corrupt` when it is not a backup. `name` is where the text is from. */
export const decode = (name: string, text: string): Effect.Effect<Backup, StoreError> =>
  Effect.mapError(
    Schema.decode(BackupText)(text),
    () => new StoreError({ reason: "Corrupt", place: name, detail: "not a backup of a nodepass master" })
  )

/** The text of a backup of the store. It contains tunnel keys. */
export const make: Effect.Effect<string, StoreError, InstanceStore> = Effect.flatMap(InstanceStore, ({ backup }) =>
  // The store's own data always fits its schema.
  Effect.flatMap(backup, (backup) => Effect.orDie(Schema.encode(BackupText)(backup)))
)

/** Writes a backup of the store. See `WrittenFile`: a regular file is replaced in one step, readable by this user only. */
export const write = (file: string): Effect.Effect<void, StoreError, InstanceStore> => Effect.flatMap(make, save(file))

/** Writes the text of a backup. */
export const save =
  (file: string) =>
  (text: string): Effect.Effect<void, StoreError> =>
    Effect.mapError(
      NodeWrittenFile.write(file, text),
      ({ detail }) => new StoreError({ reason: "Unavailable", place: file, detail: `cannot be written: ${detail}` })
    )

/** The command `nodepass backup`: gives the text to `save`. Works while a master uses the state. */
export const backup = (
  place: NodeState.Place,
  save: (text: string) => Effect.Effect<void, StoreError>
): Effect.Effect<void, StoreError> =>
  Effect.flatMap(Effect.provide(make, NodeState.layer(place, { purpose: "shared" })), save)

/** The command `nodepass restore`. Fails when the state has instances, unless `force`. */
export const restore = (
  from: Effect.Effect<Backup, StoreError>,
  place: NodeState.Place,
  { force }: { readonly force: boolean }
): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const backup = yield* from
    const store = yield* InstanceStore
    const { length } = yield* store.list
    if (length > 0 && !force) {
      const detail = `it has ${length} instances; use --force to replace them`
      return yield* new StoreError({ reason: "Unavailable", place: yield* NodeState.describe(place), detail })
    }
    yield* store.restore(backup)
  }).pipe(Effect.provide(NodeState.layer(place, { purpose: "restore" })))

/** Most bytes of a backup: ten times what 10,000 instances with ten versions each have. */
export const maxBytes = 256 * 1_048_576
