/**
 * The tables of `SqlInstanceStore`, and how they are created and brought up to date.
 */
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"

/** The version of the tables that this program needs. */
export const latest = (): number => Object.keys(migrations).length

/** The version of the tables in the database; 0 for an empty database. */
export const current = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const found = yield* sql.onDialectOrElse({
    pg: () => sql`SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = ${table}`,
    orElse: () => sql`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ${table}`
  })
  if (found.length === 0) return 0
  const [row] = yield* sql<{ readonly id: unknown }>`SELECT max(migration_id) AS id FROM ${sql(table)}`
  return Number(row?.id ?? 0)
})

/** Runs the migrations that the database does not have yet. */
export const run = Effect.suspend(() => Migrator.make({})({ loader: Migrator.fromRecord(migrations), table })).pipe(
  Effect.withSpan("SqlMigrations.run")
)

// internal

const table = "nodepass_migrations"

/** Each runs once, in this order. Never change a migration; add another one. */
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
