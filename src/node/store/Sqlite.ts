/**
 * `SqlClient` for one SQLite file, with libsql, whose binaries are npm packages.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SystemReason from "../../core/SystemReason.js"

/** The message of an error that SQLite, PostgreSQL or Node threw. */
export const reasonOf = (cause: unknown): string => SystemReason.of(cause)

/**
 * Opens the file until the scope closes; creates it if missing.
 *
 * A committed transaction is on the disk: it survives a crash of the process and a power failure. Fails when the file
 * cannot be opened, and when it is damaged.
 */
export const layer = (file: string): Layer.Layer<SqlClient.SqlClient, SqlError> =>
  Layer.scoped(SqlClient.SqlClient, make(file)).pipe(Layer.provide(Reactivity.layer))

/** Locks the file until the scope closes or the process ends, however it ends. Fails while another process has the lock. */
export const lock = (file: string): Effect.Effect<void, SqlError, Scope.Scope> =>
  Effect.flatMap(open(file), (database) => attempt(() => database.exec("BEGIN EXCLUSIVE")))

// internal

const rollback = "ROLLBACK"

const attempt = <A>(evaluate: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({ try: evaluate, catch: (cause) => new SqlError({ cause, message: reasonOf(cause) }) })

const open = (file: string) =>
  Effect.gen(function* () {
    const Libsql = yield* Effect.tryPromise({
      try: () => import("libsql"),
      catch: (cause) => new SqlError({ cause, message: `libsql has no binary for this system: ${reasonOf(cause)}` })
    })
    return yield* Effect.acquireRelease(
      attempt(() => new Libsql.default(file)),
      (database) => Effect.sync(() => database.close())
    )
  })

const make = (file: string) =>
  Effect.gen(function* () {
    const database = yield* open(file)
    yield* attempt(() => {
      database.exec("PRAGMA journal_mode = WAL")
      database.exec("PRAGMA synchronous = FULL")
      database.exec("PRAGMA busy_timeout = 5000")
      database.exec("PRAGMA foreign_keys = ON")
    })
    // Moves the write-ahead log into the database file: closing alone would leave a second file.
    yield* Effect.addFinalizer(() => Effect.ignore(attempt(() => database.exec("PRAGMA journal_mode = DELETE"))))
    const [check] = yield* attempt(() => database.prepare("PRAGMA quick_check(1)").raw(true).all())
    if (!Array.isArray(check) || check[0] !== "ok") {
      return yield* new SqlError({ cause: check, message: `damaged: ${String(check)}` })
    }
    // libsql throws when `all` is called for a statement that returns no rows.
    const run = (sql: string, params: ReadonlyArray<unknown>, raw: boolean) =>
      attempt((): ReadonlyArray<unknown> => {
        const statement = database.prepare(sql)
        if (statement.reader) return raw ? statement.raw(true).all(...params) : statement.all(...params)
        statement.run(...params)
        return []
      })
    const rows = (sql: string, params: ReadonlyArray<unknown>) =>
      Effect.map(run(sql, params, false), (rows) => rows.filter(Predicate.isRecord))
    const connection: Connection = {
      execute: (sql, params, transform) =>
        transform === undefined ? rows(sql, params) : Effect.map(rows(sql, params), transform),
      executeRaw: rows,
      executeStream: (sql, params) => Stream.fromIterableEffect(rows(sql, params)),
      executeValues: (sql, params) =>
        Effect.map(run(sql, params, true), (values) => values.filter((value) => Array.isArray(value))),
      // When the disk is full, SQLite has rolled the transaction back already.
      executeUnprepared: (sql, params) =>
        sql === rollback && !database.inTransaction ? Effect.succeed([]) : rows(sql, params)
    }
    // There is one connection: a transaction has exclusive use of it.
    const mutex = yield* Effect.makeSemaphore(1)
    return yield* SqlClient.make({
      acquirer: mutex.withPermits(1)(Effect.succeed(connection)),
      transactionAcquirer: Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Effect.scope, (scope) =>
          restore(mutex.take(1)).pipe(
            Effect.zipRight(Scope.addFinalizer(scope, mutex.release(1))),
            Effect.as(connection)
          )
        )
      ),
      beginTransaction: "BEGIN IMMEDIATE",
      rollback,
      compiler: Statement.makeCompilerSqlite(),
      spanAttributes: []
    })
  })
