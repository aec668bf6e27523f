/**
 * `SqlClient` for a PostgreSQL database that one master uses at a time.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { StoreError } from "../../master/InstanceStore.js"
import * as Sqlite from "./Sqlite.js"

export interface Options {
  readonly url: Redacted.Redacted
  /** The URL without its password, for errors. */
  readonly place: string
  /** Whether to lock the database against other masters. */
  readonly exclusive: boolean
}

/**
 * Connects, and reconnects after the connection was lost, until the scope closes.
 *
 * With `exclusive` all statements use the connection that holds the lock, so a master that lost the lock changes nothing.
 * Fails with `Unavailable` when the database does not answer, and with `Locked` when another master uses it.
 */
export const layer = ({ exclusive, place, url }: Options): Layer.Layer<SqlClient.SqlClient, StoreError> =>
  Layer.unwrapEffect(
    Effect.map(
      // Imported on demand: most masters do not use PostgreSQL.
      Effect.promise(() => import("@effect/sql-pg/PgClient")),
      (PgClient) => {
        const pool = PgClient.layer({ url, maxConnections: 4, connectTimeout, applicationName: "nodepass" })
        if (!exclusive) return pool
        return Layer.scoped(SqlClient.SqlClient, withLock(PgClient.makeCompiler())).pipe(
          Layer.provide([pool, Reactivity.layer])
        )
      }
    )
  ).pipe(
    Layer.mapError((error) => {
      const detail = Sqlite.reasonOf("cause" in error && error.cause !== undefined ? error.cause : error)
      return new StoreError({ reason: detail === lockedByOther ? "Locked" : "Unavailable", place, detail })
    })
  )

// internal

const connectTimeout = "10 seconds"
const lockedByOther = "another master uses it"
/** An arbitrary number: every master locks the same one. */
const lockId = 7_230_116

interface LockedConnection {
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

/** A client of the same database that sends everything over one connection, which holds the lock. */
const withLock = (compiler: Parameters<typeof SqlClient.make>[0]["compiler"]) =>
  Effect.gen(function* () {
    const pool = yield* SqlClient.SqlClient
    let current: LockedConnection | undefined
    const close = Effect.suspend(() => {
      const previous = current
      current = undefined
      return previous === undefined ? Effect.void : Scope.close(previous.scope, Exit.void)
    })
    const lock = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const connection = yield* Scope.extend(pool.reserve, scope)
      const locked = connection.executeValues(`SELECT pg_try_advisory_lock(${lockId})::int`, [])
      return yield* Effect.flatMap(locked, ([row]) => {
        if (row?.[0] !== 1) {
          return Effect.fail(new SqlError({ cause: new Error(lockedByOther), message: lockedByOther }))
        }
        current = { connection, scope }
        return Effect.succeed(connection)
      }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
    }).pipe(Effect.withSpan("Postgres.lock"))
    /** The current connection if it still answers, otherwise a new one. */
    const liveConnection = Effect.suspend(() => {
      if (current === undefined) return lock
      const { connection } = current
      return connection.execute("SELECT 1", [], undefined).pipe(
        Effect.as(connection),
        Effect.catchAll(() => Effect.zipRight(close, lock))
      )
    })
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        Effect.suspend(() =>
          Effect.ignore(current?.connection.execute("SELECT pg_advisory_unlock_all()", [], undefined) ?? Effect.void)
        ),
        close
      )
    )
    // The database keeps the lock of a killed master until it detects that the connection is closed.
    yield* Effect.retry(lock, Schedule.intersect(Schedule.spaced("250 millis"), Schedule.recurs(12)))

    const mutex = yield* Effect.makeSemaphore(1)
    const release = mutex.release(1)
    const acquirer = Effect.uninterruptibleMask((restore) =>
      restore(mutex.take(1)).pipe(
        // @effect/sql does not close the scope of an acquirer that fails.
        Effect.zipRight(Effect.onError(restore(liveConnection), () => release)),
        Effect.zipLeft(Effect.addFinalizer(() => release))
      )
    )
    return yield* SqlClient.make({ acquirer, compiler, spanAttributes: [["db.system.name", "postgresql"]] })
  })
