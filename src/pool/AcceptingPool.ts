/**
 * The pool of the server: it admits the connections on the tunnel port that prove to belong to its session.
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
import { HandshakeError } from "../wire/HandshakeError.js"
import * as PoolHandshake from "../wire/PoolHandshake.js"
import type * as Key from "../wire/Key.js"
import * as ReplayWindow from "../wire/ReplayWindow.js"
import * as JoinCounts from "./JoinCounts.js"
import * as Pool from "./Pool.js"
import { Settings } from "../transport/Settings.js"
import * as IdleConnections from "./IdleConnections.js"
import { ConnectionId, Demand, isConnectionId } from "../wire/Signal.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { TlsError } from "../transport/Tls.js"
import type { Connection, Transport, TransportError } from "../transport/Transport.js"
import { withoutStack } from "../core/WithoutStack.js"

/** The client opened more connections than the terms allow. The connection is closed. */
export class PoolFull extends withoutStack(Schema.TaggedError<PoolFull>()("PoolFull", { limit: Schema.Number })) {
  override get message(): string {
    return `the client opened more than ${this.limit} idle pool connections`
  }
}

/** Admits connections on the tunnel port to the pool of their session. */
export class Admission extends Context.Tag("nodepass/AcceptingPool/Admission")<
  Admission,
  {
    /**
     * Authenticates the connection by `keys`, assigns it an id and adds it to the pool, which closes `scope` from then on.
     *
     * `line` is the first line that the connection sent.
     */
    readonly admit: (
      connection: Connection,
      options: { readonly keys: Key.SessionKeys; readonly line: string; readonly scope: Scope.CloseableScope }
    ) => Effect.Effect<void, HandshakeError | PoolFull | TlsError | TransportError>
    /** What another process needs to continue the session from now. */
    readonly saved: () => Snapshot
    /** No connection from this count on is admitted until it is called again. Before the first call each may be. */
    readonly reserve: (joins: number) => void
  }
>() {}

/** What another process needs to continue the session without using an id or a count twice. */
export interface Snapshot {
  /** The last id, as a number. */
  readonly ids: number
  /** The lowest count that a new connection may have. */
  readonly joins: number
}

export interface Options extends Pool.Options {
  /** Reads the certificate in force, where pool connections use TLS. */
  readonly certificate: Option.Option<Effect.Effect<Certificate>>
  /** Of the session that is continued. Defaults to a new session. */
  readonly saved?: Snapshot | undefined
  /** Called when `saved` is another. */
  readonly onChange?: (() => void) | undefined
}

/** So many ids later. No id is used twice within 2^32 steps. */
export const skipIds = (last: number, steps: number): number => (last + Math.imul(idStep, steps)) >>> 0

/** A pool that the client fills. When a visitor waits for a connection, the pool sends the client a `Demand` at once. */
export const layer = (
  options: Options
): Layer.Layer<Admission | Pool.Pool, never, Crypto | Deadlines | EventBus | Settings | SignalBus | Transport> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const settings = yield* Settings
      const ids = yield* makeIds(options.saved?.ids)
      const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
      const connections = yield* IdleConnections.make({
        ...Pool.idleOptions(options, settings),
        onDemand: () => {
          if (connections.waiting() > 0 || connections.idle() === 0) wake.unsafeOffer(undefined)
        }
      })
      const level = yield* Pool.makeLevel(connections, () => options.max)
      yield* Effect.forkScoped(sendDemands(wake, connections.waiting, level.publish))

      const pool = Pool.Pool.of({
        ...Pool.operations(connections, options),
        warm: () => Effect.void,
        stop: Effect.void,
        stats: Effect.sync(level.stats)
      })
      const admission = yield* makeAdmission(options, connections, ids, level.publish)
      return Context.make(Pool.Pool, pool).pipe(Context.add(Admission, admission))
    })
  )

// internal

/** Sends a `Demand` whenever visitors wait, until the session is over. */
const sendDemands = (wake: Queue.Dequeue<void>, waiting: () => number, publishLevel: Effect.Effect<void>) =>
  Effect.flatMap(SignalBus, (bus) =>
    Queue.take(wake).pipe(
      Effect.flatMap(() => {
        const count = waiting()
        return count === 0 ? publishLevel : Effect.zipRight(bus.send(new Demand({ count })), publishLevel)
      }),
      Effect.forever,
      Effect.ignore
    )
  )

const makeAdmission = (
  { certificate, max, onChange, saved }: Options,
  connections: IdleConnections.IdleConnections,
  ids: Ids,
  publishLevel: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const environment = yield* Effect.context<Deadlines | Settings | Transport>()
    const counts = JoinCounts.make({ from: saved?.joins, onChange })
    const isUnused = ReplayWindow.make(counts.next())
    /** TLS handshakes under way, which count as idle connections do. */
    let securing = 0

    const secure = (connection: Connection, proof: { readonly keys: Key.SessionKeys; readonly count: number }) =>
      Option.match(certificate, {
        onNone: () => Effect.succeed(connection),
        onSome: (current) =>
          Effect.suspend(() => {
            securing++
            return Effect.flatMap(current, (certificate) =>
              PoolHandshake.secureJoined(connection, { ...proof, certificate })
            ).pipe(Effect.provide(environment), Effect.ensuring(Effect.sync(() => securing--)))
          })
      })

    const admit: Admission["Type"]["admit"] = (connection, { keys, line, scope }) =>
      Effect.gen(function* () {
        const count = yield* PoolHandshake.checkJoin(connection, { keys, line })
        if (!isUnused(count)) {
          return yield* new HandshakeError({ reason: "Malformed", peer: connection.remote })
        }
        yield* counts.add(count)
        if (connections.open() + securing >= max) return yield* new PoolFull({ limit: max })
        const secured = yield* secure(connection, { keys, count })
        const id = ids.next()
        // The id is sent before a taker can write to the connection.
        yield* PoolHandshake.admit(secured, { keys, count, id })
        yield* connections.add({ id, connection: secured, scope })
        yield* publishLevel
      }).pipe(
        // A reset, as for every idle connection: no visitor may take its end for an answer.
        Effect.onError(() => connection.reset)
      )

    return Admission.of({ admit, saved: () => ({ ids: ids.last(), joins: counts.next() }), reserve: counts.reserve })
  })

interface Ids {
  readonly next: () => ConnectionId
  readonly last: () => number
}

const idStep = 0x9e3779b1

/** Ids that repeat only after 2^32 steps: steps of an odd width from a random start, or from the last id. */
const makeIds = (last: number | undefined): Effect.Effect<Ids, never, Crypto> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const random = yield* crypto.randomBytes(4)
    let next = last ?? new DataView(random.buffer, random.byteOffset).getUint32(0)
    return {
      next: () => {
        next = skipIds(next, 1)
        const id = next.toString(16).padStart(8, "0")
        return isConnectionId(id) ? id : ConnectionId.make(id)
      },
      last: () => next
    }
  })
