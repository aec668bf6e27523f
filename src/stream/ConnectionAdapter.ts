/**
 * Any `Transport.Connection` as one that does not block: a fiber reads ahead, and another writes.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import type * as NonBlocking from "../transport/NonBlocking.js"
import { broken, nothing } from "../transport/NonBlocking.js"
import type { Connection } from "../transport/Transport.js"
import * as Frame from "../wire/Frame.js"

/**
 * The connection itself where it can do without fibers. The scope owns the fibers; the connection must not be used otherwise,
 * and its owner still closes it.
 */
export const make = (connection: Connection): Effect.Effect<NonBlocking.Connection, never, Scope.Scope> =>
  connection.nonBlocking === undefined ? byFibers(connection) : Effect.sync(connection.nonBlocking)

// internal

/** Bytes that wait to be written before no more are taken. */
const highWaterBytes = 64 * 1024

const byFibers = (connection: Connection): Effect.Effect<NonBlocking.Connection, never, Scope.Scope> =>
  Effect.gen(function* () {
    const run = Runtime.runFork(yield* Effect.runtime())
    const wanted = yield* Effect.makeLatch(false)
    const filled = yield* Effect.makeLatch(false)
    let owner: NonBlocking.Owner | undefined
    /** The chunk that was read ahead; `None` for the end. */
    let chunk: Option.Option<Uint8Array> | undefined
    let isBroken = false
    const pending: Array<Uint8Array> = []
    let pendingBytes = 0
    let wasFull = false
    let isFinished = false

    const fail = Effect.sync(() => {
      isBroken = true
      owner?.ready(true, true)
    })
    const read: Effect.Effect<void> = wanted.await.pipe(
      Effect.zipRight(connection.read),
      Effect.flatMap((received) => {
        wanted.unsafeClose()
        chunk = received
        owner?.ready(true, false)
        return Option.isSome(received) ? read : Effect.void
      }),
      Effect.catchAll(() => fail)
    )
    const write: Effect.Effect<void> = filled.await.pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          const bytes = Frame.concat(pending.splice(0))
          filled.unsafeClose()
          if (bytes.length === 0) return connection.end
          return Effect.zipRight(
            connection.write(bytes),
            Effect.sync(() => {
              pendingBytes -= bytes.length
              if (pending.length > 0 || isFinished) filled.unsafeOpen()
              if (wasFull && pendingBytes < highWaterBytes) {
                wasFull = false
                owner?.ready(false, true)
              }
            })
          )
        })
      ),
      Effect.zipRight(Effect.suspend(() => (isFinished && pending.length === 0 ? connection.end : write))),
      Effect.catchAll(() => fail)
    )
    yield* Effect.forkScoped(read)
    yield* Effect.forkScoped(write)
    wanted.unsafeOpen()

    const finish = () => {
      isFinished = true
      filled.unsafeOpen()
    }
    const adapted: NonBlocking.Connection = {
      read: (bytes, at, size) => {
        if (chunk === undefined) return isBroken ? broken : nothing
        if (Option.isNone(chunk)) return 0
        const part = chunk.value.subarray(0, size)
        bytes.set(part, at)
        if (part.length < chunk.value.length) chunk = Option.some(chunk.value.subarray(part.length))
        else {
          chunk = undefined
          wanted.unsafeOpen()
        }
        return part.length
      },
      write: (bytes, at, size) => {
        if (isBroken) return broken
        const count = Math.max(0, Math.min(size, highWaterBytes - pendingBytes))
        if (count > 0) {
          pending.push(bytes.slice(at, at + count))
          pendingBytes += count
          filled.unsafeOpen()
        }
        wasFull ||= count < size
        return count
      },
      shutdown: finish,
      close: finish,
      reset: () => {
        isBroken = true
        run(connection.reset)
      },
      setOwner: (next) => {
        owner = next
      }
    }
    return adapted
  })
