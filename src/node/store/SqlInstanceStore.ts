/**
 * `InstanceStore` in an SQL database: SQLite or PostgreSQL.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { Id, Meta } from "../../master/Instance.js"
import {
  type Backup,
  Identity,
  InstanceStore,
  type Stored,
  StoredVersion,
  StoreError
} from "../../master/InstanceStore.js"
import * as Sqlite from "./Sqlite.js"
import * as SqlMigrations from "./SqlMigrations.js"

export interface Options {
  /** The name of the database in errors. */
  readonly place: string
}

/** Migrates the tables first. Fails with `Newer` when a later version has migrated them. */
export const layer = ({ place }: Options): Layer.Layer<InstanceStore, StoreError, SqlClient.SqlClient> =>
  Layer.effect(
    InstanceStore,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const read = <A, R>(name: string, self: Effect.Effect<A, ParseResult.ParseError | SqlError, R>) =>
        operation({ name, place }, self)
      const transaction = <A>(name: string, self: Effect.Effect<A, SqlError>) =>
        Effect.asVoid(operation({ name, place }, sql.withTransaction(self)))
      yield* migrate(place)

      const insert = (stored: Stored) => sql`INSERT INTO instances ${sql.insert(rowOf(stored))}`
      // On a conflict the version is one whose insertion was reported as failed, because the connection broke meanwhile.
      const insertVersion = (given: StoredVersion) =>
        sql`INSERT INTO versions ${sql.insert({ ...given })} ON CONFLICT (id, version) DO UPDATE SET url = ${given.url}, time = ${given.time}`
      const setIdentity = (identity: Identity) =>
        Effect.zipRight(sql`DELETE FROM master`, sql`INSERT INTO master ${sql.insert({ ...identity })}`)
      const identity = Effect.flatMap(sql`SELECT mid, alias, ${sql("keyHash")} FROM master`, (rows) =>
        Effect.map(decodeIdentity(rows), ([first]) => Option.fromNullable(first))
      )
      const list = Effect.flatMap(sql`SELECT * FROM instances ORDER BY created, id`, (rows) =>
        Effect.map(decodeRows(rows), (rows) => rows.map(storedOf))
      )

      return InstanceStore.of({
        identity: read("identity", identity),
        identify: (given) => transaction("identify", setIdentity(given)),
        saveIdentity: (fields) => transaction("saveIdentity", sql`UPDATE master SET ${sql.update(fields)}`),
        probe: Effect.zipRight(
          // In two transactions: one that ends as it began need not store anything.
          transaction(
            "probe",
            Effect.zipRight(
              sql`CREATE TABLE IF NOT EXISTS probe (data TEXT NOT NULL)`,
              sql`INSERT INTO probe ${sql.insert({ data: "0".repeat(65_536) })}`
            )
          ),
          transaction("probe", sql`DROP TABLE probe`)
        ),
        list: read("list", list),
        insert: (stored) =>
          transaction(
            "insert",
            Effect.zipRight(
              insert(stored),
              insertVersion({ id: stored.id, version: stored.version, url: stored.url, time: stored.created })
            )
          ),
        save: (id, { alias, meta, restart, version }) =>
          transaction(
            "save",
            sql`UPDATE instances SET alias = ${alias}, restart = ${restart ? 1 : 0}, meta = ${encodeMeta(meta)}, version = ${version} WHERE id = ${id}`
          ),
        saveUrl: (given) =>
          transaction(
            "saveUrl",
            Effect.zipRight(
              sql`UPDATE instances SET url = ${given.url}, version = ${given.version} WHERE id = ${given.id}`,
              insertVersion(given)
            )
          ),
        saveTraffic: (traffic) =>
          transaction(
            "saveTraffic",
            Effect.forEach(
              traffic,
              ([id, { tcprx, tcptx, udprx, udptx }]) =>
                sql`UPDATE instances SET tcprx = ${tcprx}, tcptx = ${tcptx}, udprx = ${udprx}, udptx = ${udptx} WHERE id = ${id}`,
              { discard: true }
            )
          ),
        remove: (id) =>
          transaction(
            "remove",
            Effect.zipRight(sql`DELETE FROM versions WHERE id = ${id}`, sql`DELETE FROM instances WHERE id = ${id}`)
          ),
        versions: (id) =>
          read(
            "versions",
            Effect.flatMap(
              sql`SELECT id, version, url, time FROM versions WHERE id = ${id} ORDER BY version DESC`,
              decodeVersions
            )
          ),
        backup: read(
          "backup",
          sql.withTransaction(
            Effect.gen(function* () {
              const versions = yield* sql`SELECT id, version, url, time FROM versions ORDER BY id, version`
              return {
                format: "nodepass-backup/1",
                identity: Option.getOrNull(yield* identity),
                instances: yield* list,
                versions: yield* decodeVersions(versions)
              } satisfies Backup
            })
          )
        ),
        restore: (backup) =>
          transaction(
            "restore",
            Effect.gen(function* () {
              yield* sql`DELETE FROM versions`
              yield* sql`DELETE FROM instances`
              yield* sql`DELETE FROM master`
              if (backup.identity !== null) yield* setIdentity(backup.identity)
              yield* Effect.forEach(backup.instances, insert, { discard: true })
              yield* Effect.forEach(backup.versions, insertVersion, { discard: true })
            })
          )
      })
    })
  )

// internal

const timeout = Duration.seconds(10)

/** Runs an operation in a span, with a timeout, its errors as `StoreError`. */
const operation = <A, R>(
  { name, place }: { readonly name: string; readonly place: string },
  self: Effect.Effect<A, ParseResult.ParseError | SqlError, R>
): Effect.Effect<A, StoreError, R> =>
  self.pipe(
    defectToError,
    Effect.mapError((error) =>
      error._tag === "SqlError"
        ? new StoreError({ reason: "Unavailable", place, detail: sentenceOf(error) })
        : new StoreError({ reason: "Corrupt", place, detail: error.message.replaceAll(/\s+/g, " ") })
    ),
    // Disconnected: after the timeout the caller does not wait until the operation is cancelled.
    Effect.disconnect,
    Effect.interruptible,
    Effect.timeoutFail({
      duration: timeout,
      onTimeout: () =>
        new StoreError({ reason: "Unavailable", place, detail: `no answer within ${Duration.format(timeout)}` })
    }),
    Effect.withSpan(`InstanceStore.${name}`, { kind: "client" })
  )

const migrate = (place: string): Effect.Effect<void, StoreError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const latest = SqlMigrations.latest()
    const found = yield* operation({ name: "version", place }, SqlMigrations.current)
    if (found > latest) {
      const detail = `a later nodepass wrote it: table version ${found}, this nodepass supports up to ${latest}`
      return yield* new StoreError({ reason: "Newer", place, detail })
    }
    yield* Effect.mapError(SqlMigrations.run, (error) => {
      const detail = error._tag === "SqlError" ? sentenceOf(error) : error.message
      return new StoreError({ reason: "Unavailable", place, detail })
    })
  })

/** @effect/sql dies when a transaction cannot begin or end; here that is a failure. */
const defectToError = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
  Effect.catchSomeDefect(self, (defect) => (isSqlError(defect) ? Option.some(Effect.fail(defect)) : Option.none()))

const isSqlError = (defect: unknown): defect is SqlError => defect instanceof SqlError

const sentenceOf = ({ cause, message }: SqlError): string =>
  (Sqlite.reasonOf(cause) || message).replaceAll(/\s+/g, " ").trim()

/** PostgreSQL returns BIGINT as text. */
const Count = Schema.Union(Schema.Number, Schema.NumberFromString)

const Row = Schema.Struct({
  id: Id,
  alias: Schema.String,
  url: Schema.String,
  restart: Schema.Number,
  meta: Schema.parseJson(Meta),
  tcprx: Count,
  tcptx: Count,
  udprx: Count,
  udptx: Count,
  version: Count,
  created: Count
})

const decodeRows = Schema.decodeUnknown(Schema.Array(Row))
const decodeVersions = Schema.decodeUnknown(
  Schema.Array(Schema.Struct({ ...StoredVersion.fields, version: Count, time: Count }))
)
const decodeIdentity = Schema.decodeUnknown(Schema.Array(Identity))
const encodeMeta = Schema.encodeSync(Schema.parseJson(Meta))

const rowOf = ({ alias, created, id, meta, restart, traffic, url, version }: Stored) => ({
  id,
  alias,
  url,
  restart: restart ? 1 : 0,
  meta: encodeMeta(meta),
  ...traffic,
  version,
  created
})

const storedOf = ({ restart, tcprx, tcptx, udprx, udptx, ...row }: typeof Row.Type): Stored => ({
  ...row,
  restart: restart !== 0,
  traffic: { tcprx, tcptx, udprx, udptx }
})
