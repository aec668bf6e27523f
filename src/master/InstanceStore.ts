/**
 * What the master stores: instances with all versions of their URLs and their traffic, and its own identity.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Id, Meta, Traffic } from "./Instance.js"

/** The operation failed, and changed nothing. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  /** `Corrupt`: the data is damaged. `Newer`: a later version wrote it. `Locked`: another master uses it. */
  reason: Schema.Literal("Corrupt", "Newer", "Locked", "Unavailable"),
  /** The path of the store, or its URL without the password. */
  place: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `state ${this.place}: ${this.detail}`
  }
}

/** An instance as the store has it. */
export const Stored = Schema.Struct({
  id: Id,
  alias: Schema.String,
  url: Schema.String,
  restart: Schema.Boolean,
  meta: Meta,
  traffic: Traffic,
  /** Counts the changes, from 1. */
  version: Schema.Number,
  /** Epoch milliseconds. */
  created: Schema.Number
})
export type Stored = typeof Stored.Type

/** A URL of an instance. The present one has the highest version. */
export const StoredVersion = Schema.Struct({
  id: Id,
  /** That of the instance when it got this URL. */
  version: Schema.Number,
  url: Schema.String,
  /** Epoch milliseconds. */
  time: Schema.Number
})
export type StoredVersion = typeof StoredVersion.Type

/** The identity of the master. */
export const Identity = Schema.Struct({
  /** 16 hex digits. */
  mid: Schema.String,
  alias: Schema.String,
  /** The hash of the API key: see `ApiKey`. */
  keyHash: Schema.String
})
export type Identity = typeof Identity.Type

/** The whole content of a store. */
export const Backup = Schema.Struct({
  format: Schema.Literal("nodepass-backup/1"),
  identity: Schema.NullOr(Identity),
  instances: Schema.Array(Stored),
  versions: Schema.Array(StoredVersion)
})
export type Backup = typeof Backup.Type

/** The text of a backup file. */
export const BackupText = Schema.parseJson(Backup, { space: 1 })

/** Each change is atomic, and durable once its effect has succeeded: it survives a crash of the process. */
export class InstanceStore extends Context.Tag("nodepass/InstanceStore")<
  InstanceStore,
  {
    /** `None` before the first `identify`. */
    readonly identity: Effect.Effect<Option.Option<Identity>, StoreError>
    readonly identify: (identity: Identity) => Effect.Effect<void, StoreError>
    /** Sets the given fields of the identity. Has no effect before the first `identify`. */
    readonly saveIdentity: (fields: Partial<Identity>) => Effect.Effect<void, StoreError>
    /** Stores 64 KiB and removes them, which shows that changes can be stored: on a full disk a few bytes may still fit. */
    readonly probe: Effect.Effect<void, StoreError>
    /** In the order of their creation. */
    readonly list: Effect.Effect<ReadonlyArray<Stored>, StoreError>
    /** Adds an instance; its URL is version 1. */
    readonly insert: (stored: Stored) => Effect.Effect<void, StoreError>
    /** Sets the fields of which the store has the last value only. Has no effect for an unknown id. */
    readonly save: (
      id: Id,
      fields: Pick<Stored, "alias" | "meta" | "restart" | "version">
    ) => Effect.Effect<void, StoreError>
    /** Sets the URL, and keeps the earlier ones. */
    readonly saveUrl: (version: StoredVersion) => Effect.Effect<void, StoreError>
    readonly saveTraffic: (traffic: ReadonlyMap<Id, Traffic>) => Effect.Effect<void, StoreError>
    /** Removes the instance with its versions. Has no effect for an unknown id. */
    readonly remove: (id: Id) => Effect.Effect<void, StoreError>
    /** Newest first. */
    readonly versions: (id: Id) => Effect.Effect<ReadonlyArray<StoredVersion>, StoreError>
    readonly backup: Effect.Effect<Backup, StoreError>
    /** Replaces the whole content. */
    readonly restore: (backup: Backup) => Effect.Effect<void, StoreError>
  }
>() {}

/** A store in memory, for tests and for hosts that need no durable state. */
export const make = (): InstanceStore["Type"] => {
  let identity: Identity | undefined
  let instances = new Map<Id, Stored>()
  let versions = new Map<Id, ReadonlyArray<StoredVersion>>()
  const update = (id: Id, fields: Partial<Stored>) => {
    const stored = instances.get(id)
    if (stored !== undefined) instances.set(id, { ...stored, ...fields })
  }
  return InstanceStore.of({
    identity: Effect.sync(() => Option.fromNullable(identity)),
    identify: (given) =>
      Effect.sync(() => {
        identity = given
      }),
    saveIdentity: (fields) =>
      Effect.sync(() => {
        identity = identity && { ...identity, ...fields }
      }),
    probe: Effect.void,
    list: Effect.sync(() => [...instances.values()]),
    insert: (stored) =>
      Effect.sync(() => {
        instances.set(stored.id, stored)
        versions.set(stored.id, [{ id: stored.id, version: stored.version, url: stored.url, time: stored.created }])
      }),
    save: (id, fields) => Effect.sync(() => update(id, fields)),
    saveUrl: (version) =>
      Effect.sync(() => {
        update(version.id, { url: version.url, version: version.version })
        versions.set(version.id, [version, ...(versions.get(version.id) ?? [])])
      }),
    saveTraffic: (traffic) =>
      Effect.sync(() => {
        for (const [id, bytes] of traffic) update(id, { traffic: bytes })
      }),
    remove: (id) =>
      Effect.sync(() => {
        instances.delete(id)
        versions.delete(id)
      }),
    versions: (id) => Effect.sync(() => versions.get(id) ?? []),
    backup: Effect.sync(() => ({
      format: "nodepass-backup/1",
      identity: identity ?? null,
      instances: [...instances.values()],
      versions: [...versions.values()].flat()
    })),
    restore: (backup) =>
      Effect.sync(() => {
        identity = backup.identity ?? undefined
        instances = new Map(backup.instances.map((stored) => [stored.id, stored]))
        versions = new Map(
          backup.instances.map(({ id }) => [
            id,
            backup.versions.filter((version) => version.id === id).toSorted((a, b) => b.version - a.version)
          ])
        )
      })
  })
}

export const layerMemory: Layer.Layer<InstanceStore> = Layer.sync(InstanceStore, make)
