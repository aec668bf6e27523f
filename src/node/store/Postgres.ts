/**
 * `SqlClient` over a PostgreSQL database that one master has at a time.
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
  /** The URL without its password. */
  readonly place: string
  /** Whether no other process may have it too. */
  readonly alone: boolean
}

/**
 * Connects, and again when the connection was lost, until the scope closes.
 *
 * `alone`: everything goes over the one connection that has the lock, so that nothing is changed by whoever has lost it.
 * Fails with `Unavailable` when the database does not answer, and with `Locked` when another process has it.
 */
export const layer = ({ alone, place, url }: Options): Layer.Layer<SqlClient.SqlClient, StoreError> =>
  Layer.unwrapEffect(
    Effect.map(
      // Loaded late: most have none.
      Effect.promise(() => import("@effect/sql-pg/PgClient")),
      (PgClient) => {
        const pool = PgClient.layer({ url, maxConnections: 4, connectTimeout, applicationName: "nodepass" })
        if (!alone) return pool
        return Layer.scoped(SqlClient.SqlClient, lockedBy(PgClient.makeCompiler())).pipe(
          Layer.provide([pool, Reactivity.layer])
        )
      }
    )
  ).pipe(
    Layer.mapError((error) => {
      const detail = Sqlite.reasonOf("cause" in error && error.cause !== undefined ? error.cause : error)
      return new StoreError({ reason: detail === taken ? "Locked" : "Unavailable", place, detail })
    })
  )

// internal

const connectTimeout = "10 seconds"
const taken = "another master has it"

interface Held {
  readonly connection: Connection
  readonly scope: Scope.CloseableScope
}

/** The same database, asked over one connection that holds a lock; another one is opened when that is lost. */
const lockedBy = (compiler: Parameters<typeof SqlClient.make>[0]["compiler"]) =>
  Effect.gen(function* () {
    const pool = yield* SqlClient.SqlClient
    let held: Held | undefined
    const leave = Effect.suspend(() => {
      const was = held
      held = undefined
      return was === undefined ? Effect.void : Scope.close(was.scope, Exit.void)
    })
    const take = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const connection = yield* Scope.extend(pool.reserve, scope)
      const locked = connection.executeValues("SELECT pg_try_advisory_lock(7230116)::int", [])
      return yield* Effect.flatMap(locked, ([row]) => {
        if (row?.[0] !== 1) return Effect.fail(new SqlError({ cause: new Error(taken), message: taken }))
        held = { connection, scope }
        return Effect.succeed(connection)
      }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
    })
    /** The connection, once it has answered. */
    const lively = Effect.suspend(() => {
      if (held === undefined) return take
      const { connection } = held
      return connection.execute("SELECT 1", [], undefined).pipe(
        Effect.as(connection),
        Effect.catchAll(() => Effect.zipRight(leave, take))
      )
    })
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        Effect.suspend(() =>
          Effect.ignore(held?.connection.execute("SELECT pg_advisory_unlock_all()", [], undefined) ?? Effect.void)
        ),
        leave
      )
    )
    // One that was killed has it until the database has noticed.
    yield* Effect.retry(take, Schedule.intersect(Schedule.spaced("250 millis"), Schedule.recurs(12)))

    const turn = yield* Effect.makeSemaphore(1)
    const release = turn.release(1)
    const acquirer = Effect.uninterruptibleMask((restore) =>
      restore(turn.take(1)).pipe(
        // The library forgets the scope of one that fails.
        Effect.zipRight(Effect.onError(restore(lively), () => release)),
        Effect.zipLeft(Effect.addFinalizer(() => release))
      )
    )
    return yield* SqlClient.make({ acquirer, compiler, spanAttributes: [] })
  })
