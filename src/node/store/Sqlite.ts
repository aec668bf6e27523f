/**
 * `SqlClient` over one SQLite file, by libsql, whose binaries come with the package manager.
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

/** What went wrong, in SQLite's own words. */
export const reasonOf = (cause: unknown): string => (Predicate.isError(cause) ? cause.message : String(cause))

/**
 * Opens the file, making it when it is not there, until the scope closes.
 *
 * What is committed is on the disk: it outlives the process and the machine's power. Fails when it cannot be opened, and
 * when it is not whole.
 */
export const layer = (file: string): Layer.Layer<SqlClient.SqlClient, SqlError> =>
  Layer.scoped(SqlClient.SqlClient, make(file)).pipe(Layer.provide(Reactivity.layer))

/** Holds the file as a lock until the scope closes or the process ends in whatever way. Fails while another one does. */
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
      catch: (cause) => new SqlError({ cause, message: `libsql has no program for this system: ${reasonOf(cause)}` })
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
    // Closing alone leaves what was written in a second file.
    yield* Effect.addFinalizer(() => Effect.ignore(attempt(() => database.exec("PRAGMA journal_mode = DELETE"))))
    const [check] = yield* attempt(() => database.prepare("PRAGMA quick_check(1)").raw(true).all())
    if (!Array.isArray(check) || check[0] !== "ok") {
      return yield* new SqlError({ cause: check, message: `it is damaged: ${String(check)}` })
    }
    // The library reads what a statement returns by `all`, and takes no `all` for one that returns nothing.
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
      // A disk that is full has ended the transaction already.
      executeUnprepared: (sql, params) =>
        sql === rollback && !database.inTransaction ? Effect.succeed([]) : rows(sql, params)
    }
    // One connection: a transaction has it for itself.
    const turn = yield* Effect.makeSemaphore(1)
    return yield* SqlClient.make({
      acquirer: turn.withPermits(1)(Effect.succeed(connection)),
      transactionAcquirer: Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Effect.scope, (scope) =>
          restore(turn.take(1)).pipe(Effect.zipRight(Scope.addFinalizer(scope, turn.release(1))), Effect.as(connection))
        )
      ),
      beginTransaction: "BEGIN IMMEDIATE",
      rollback,
      compiler: Statement.makeCompilerSqlite(),
      spanAttributes: []
    })
  })
