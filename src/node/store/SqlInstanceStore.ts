/**
 * `InstanceStore` in an SQL database, SQLite or PostgreSQL.
 */
import * as Migrator from "@effect/sql/Migrator"
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

export interface Options {
  /** The database, in errors. */
  readonly place: string
}

/** Brings the tables up to date first. Fails with `Newer` when a later version has made them. */
export const layer = ({ place }: Options): Layer.Layer<InstanceStore, StoreError, SqlClient.SqlClient> =>
  Layer.effect(
    InstanceStore,
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const fail = (reason: StoreError["reason"], detail: string) => new StoreError({ reason, place, detail })
      const late = () => fail("Unavailable", `it does not answer within ${Duration.format(patience)}`)
      /** Whoever waits is told in the end; what was begun is broken off behind their back. */
      const bounded = <A, E>(self: Effect.Effect<A, E>) =>
        Effect.timeoutFail(Effect.interruptible(Effect.disconnect(self)), { duration: patience, onTimeout: late })
      const asked = <A>(self: Effect.Effect<A, SqlError>) =>
        bounded(Effect.mapError(told(self), (error) => fail("Unavailable", sentence(error))))
      const known = Object.keys(migrations).length
      const found = yield* asked(version(sql))
      if (found > known) {
        return yield* fail(
          "Newer",
          `a later nodepass has written it: expected at most version ${known} of its tables, found ${found}`
        )
      }
      yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table }).pipe(
        Effect.provideService(SqlClient.SqlClient, sql),
        Effect.mapError((error) => fail("Unavailable", error._tag === "SqlError" ? sentence(error) : error.message))
      )

      // One that was told to have failed may have come about when the connection broke.
      const insertVersion = (given: StoredVersion) =>
        sql`INSERT INTO versions ${sql.insert({ ...given })} ON CONFLICT (id, version) DO UPDATE SET url = ${given.url}, time = ${given.time}`
      const insert = (stored: Stored) => sql`INSERT INTO instances ${sql.insert(rowOf(stored))}`
      const identify = (identity: Identity) =>
        Effect.zipRight(sql`DELETE FROM master`, sql`INSERT INTO master ${sql.insert({ ...identity })}`)
      const identity = Effect.flatMap(sql`SELECT mid, alias, ${sql("keyHash")} FROM master`, (rows) =>
        Effect.map(decodeIdentity(rows), ([first]) => Option.fromNullable(first))
      )
      const list = Effect.flatMap(sql`SELECT * FROM instances ORDER BY created, id`, (rows) =>
        Effect.map(decodeRows(rows), (rows) => rows.map(storedOf))
      )
      const whole = <A>(self: Effect.Effect<A, SqlError>) => Effect.asVoid(asked(sql.withTransaction(self)))
      const read = <A>(self: Effect.Effect<A, ParseResult.ParseError | SqlError>) =>
        bounded(
          Effect.mapError(told(self), (error) =>
            error._tag === "SqlError"
              ? fail("Unavailable", sentence(error))
              : fail("Corrupt", error.message.replaceAll(/\s+/g, " "))
          )
        )

      return InstanceStore.of({
        identity: read(identity),
        identify: (given) => whole(identify(given)),
        list: read(list),
        insert: (stored) =>
          whole(
            Effect.zipRight(
              insert(stored),
              insertVersion({ id: stored.id, version: stored.version, url: stored.url, time: stored.created })
            )
          ),
        save: (id, { alias, meta, restart }) =>
          whole(
            sql`UPDATE instances SET alias = ${alias}, restart = ${restart ? 1 : 0}, meta = ${encodeMeta(meta)} WHERE id = ${id}`
          ),
        saveUrl: (given) =>
          whole(
            Effect.zipRight(
              sql`UPDATE instances SET url = ${given.url}, version = ${given.version} WHERE id = ${given.id}`,
              insertVersion(given)
            )
          ),
        saveTraffic: (traffic) =>
          whole(
            Effect.forEach(
              traffic,
              ([id, { tcprx, tcptx, udprx, udptx }]) =>
                sql`UPDATE instances SET tcprx = ${tcprx}, tcptx = ${tcptx}, udprx = ${udprx}, udptx = ${udptx} WHERE id = ${id}`,
              { discard: true }
            )
          ),
        remove: (id) =>
          whole(
            Effect.zipRight(sql`DELETE FROM versions WHERE id = ${id}`, sql`DELETE FROM instances WHERE id = ${id}`)
          ),
        versions: (id) =>
          read(
            Effect.flatMap(
              sql`SELECT id, version, url, time FROM versions WHERE id = ${id} ORDER BY version DESC`,
              decodeVersions
            )
          ),
        backup: read(
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
          whole(
            Effect.gen(function* () {
              yield* sql`DELETE FROM versions`
              yield* sql`DELETE FROM instances`
              yield* sql`DELETE FROM master`
              if (backup.identity !== null) yield* identify(backup.identity)
              yield* Effect.forEach(backup.instances, insert, { discard: true })
              yield* Effect.forEach(backup.versions, insertVersion, { discard: true })
            })
          )
      })
    })
  )

// internal

const table = "nodepass_migrations"
const patience = Duration.seconds(10)

/** A transaction that cannot be begun or ended is a failure, and no defect, which the library makes of it. */
const told = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E | SqlError> =>
  Effect.catchSomeDefect(self, (defect) => (isSqlError(defect) ? Option.some(Effect.fail(defect)) : Option.none()))

const isSqlError = (defect: unknown): defect is SqlError => defect instanceof SqlError

/** Each is done once, in this order; what is here is never changed, only added to. */
const migrations = {
  "1_instances": Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE master (mid TEXT NOT NULL, alias TEXT NOT NULL, ${sql("keyHash")} TEXT NOT NULL)`
    yield* sql`CREATE TABLE instances (
      id TEXT PRIMARY KEY, alias TEXT NOT NULL, url TEXT NOT NULL, restart INTEGER NOT NULL, meta TEXT NOT NULL,
      tcprx BIGINT NOT NULL, tcptx BIGINT NOT NULL, udprx BIGINT NOT NULL, udptx BIGINT NOT NULL,
      version INTEGER NOT NULL, created BIGINT NOT NULL)`
    yield* sql`CREATE TABLE versions (
      id TEXT NOT NULL, version INTEGER NOT NULL, url TEXT NOT NULL, time BIGINT NOT NULL, PRIMARY KEY (id, version))`
  })
}

/** The last migration that was done; 0 for an empty database. */
const version = (sql: SqlClient.SqlClient) =>
  Effect.gen(function* () {
    const there = yield* sql.onDialectOrElse({
      pg: () => sql`SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = ${table}`,
      orElse: () => sql`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ${table}`
    })
    if (there.length === 0) return 0
    const [row] = yield* sql<{ readonly id: unknown }>`SELECT max(migration_id) AS id FROM ${sql(table)}`
    return Number(row?.id ?? 0)
  })

/** PostgreSQL gives large numbers as text. */
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

const sentence = ({ cause, message }: SqlError): string =>
  (Sqlite.reasonOf(cause) || message).replaceAll(/\s+/g, " ").trim()
