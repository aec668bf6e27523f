/**
 * The pool of the side that takes the connections in: newcomers of the tunnel port who prove that they belong to it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Certificate } from "../transport/Certificates.js"
import { Crypto } from "../transport/Crypto.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { EventBus } from "../core/EventBus.js"
import * as Handshake from "../wire/Handshake.js"
import type * as Key from "../wire/Key.js"
import * as ReplayWindow from "../wire/ReplayWindow.js"
import * as Pool from "./Pool.js"
import { Settings } from "../transport/Settings.js"
import * as IdleConnections from "./IdleConnections.js"
import { ConnectionId, Demand, isConnectionId } from "../wire/Signal.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { TlsError } from "../transport/Tls.js"
import type { Connection, Transport, TransportError } from "../transport/Transport.js"

/** Every place for an idle connection is taken. */
export class PoolFull extends Schema.TaggedError<PoolFull>()("PoolFull", { limit: Schema.Number }) {
  override get message(): string {
    return `the client opened more than ${this.limit} idle pool connections`
  }
}

/** Where an authenticated newcomer of the tunnel port is brought into the pool of its session. */
export class Admission extends Context.Tag("nodepass/AcceptingPool/Admission")<
  Admission,
  {
    /** Checks the newcomer's seal by `keys`, gives it an id and keeps it; `scope` is then the pool's to close. */
    readonly admit: (
      connection: Connection,
      options: { readonly keys: Key.SessionKeys; readonly line: string; readonly scope: Scope.CloseableScope }
    ) => Effect.Effect<void, Handshake.HandshakeError | PoolFull | TlsError | TransportError>
    readonly saved: () => Snapshot
  }
>() {}

/** What keeps ids and numbers different in a session that another process goes on with. */
export interface Snapshot {
  /** What the next id is made from. */
  readonly ids: number
  /** The first number that a newcomer may bring. */
  readonly joins: number
}

export interface Options extends Pool.Options {
  /** The certificate in force when a connection comes, where data connections are secured. */
  readonly certificate: Option.Option<Effect.Effect<Certificate>>
  /** What it goes on with. Defaults to a new session. */
  readonly saved?: Snapshot | undefined
}

/** A pool that the client fills. A visitor who finds it empty has the client told at once. */
export const layer = (
  options: Options
): Layer.Layer<Admission | Pool.Pool, never, Crypto | Deadlines | EventBus | Settings | SignalBus | Transport> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const settings = yield* Settings
      const environment = yield* Effect.context<Deadlines | Settings | Transport>()
      const ids = yield* makeIds(options.saved?.ids)
      let joins = options.saved?.joins ?? 0
      const seen = ReplayWindow.make(joins)
      const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)

      const connections: IdleConnections.IdleConnections = yield* IdleConnections.make({
        ...Pool.idleOptions(options, settings),
        onDemand: () => {
          if (connections.waiting() > 0 || connections.idle() === 0) wake.unsafeOffer(undefined)
        }
      })

      const stats = (): Pool.Stats => ({
        idle: connections.idle(),
        capacity: options.max,
        waiting: connections.waiting()
      })
      const level = yield* Pool.levels(stats)

      yield* Queue.take(wake).pipe(
        Effect.flatMap(() => {
          const count = connections.waiting()
          return count === 0 ? level : Effect.zipRight(bus.send(new Demand({ count })), level)
        }),
        Effect.forever,
        Effect.ignore,
        Effect.forkScoped
      )

      const pool = Pool.Pool.of({
        ...Pool.operations(connections, options),
        warm: () => Effect.void,
        stats: Effect.sync(stats)
      })

      let securing = 0
      const secured = (connection: Connection, proof: { readonly keys: Key.SessionKeys; readonly count: number }) =>
        Option.match(options.certificate, {
          onNone: () => Effect.succeed(connection),
          onSome: (current) =>
            Effect.suspend(() => {
              securing++
              return Effect.flatMap(current, (certificate) =>
                Handshake.secured(connection, { ...proof, certificate })
              ).pipe(Effect.provide(environment), Effect.ensuring(Effect.sync(() => securing--)))
            })
        })

      const admission = Admission.of({
        admit: (connection, { keys, line, scope }) =>
          Effect.gen(function* () {
            const count = yield* Handshake.joined(connection, { keys, line })
            joins = Math.max(joins, count + 1)
            if (!seen(count))
              return yield* new Handshake.HandshakeError({ reason: "Malformed", peer: connection.remote })
            if (connections.open() + securing >= options.max) return yield* new PoolFull({ limit: options.max })
            const inner = yield* secured(connection, { keys, count })
            const id = ids.next()
            // The id goes out before anybody can take the connection, so that nothing overtakes it on the wire.
            yield* Handshake.admit(inner, { keys, count, id })
            yield* connections.add({ id, connection: inner, scope })
            yield* level
          }).pipe(
            // As an idle one is closed: whoever it was given to must not take an end for an answer.
            Effect.onError(() => connection.reset)
          ),
        saved: () => ({ ids: ids.last(), joins })
      })

      return Context.make(Pool.Pool, pool).pipe(Context.add(Admission, admission))
    })
  )

// internal

/** Ids that are all different until 2^32 were made: steps of an odd width from a random start, or from the last. */
const makeIds = (
  last: number | undefined
): Effect.Effect<{ readonly next: () => ConnectionId; readonly last: () => number }, never, Crypto> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const random = yield* crypto.randomBytes(4)
    let next = last ?? new DataView(random.buffer, random.byteOffset).getUint32(0)
    return {
      next: () => {
        next = (next + 0x9e3779b1) >>> 0
        const id = next.toString(16).padStart(8, "0")
        return isConnectionId(id) ? id : ConnectionId.make(id)
      },
      last: () => next
    }
  })
