/**
 * Connections between the two sides, opened and authenticated before anybody needs them, each handed out once.
 *
 * The client opens them (`layerDialing`), the server takes them in (`layerAccepting`). Whichever side visitors come to
 * takes any idle one and names it to the other, which takes it by that name.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Address } from "./Address.js"
import { Crypto } from "./Crypto.js"
import * as Handshake from "./Handshake.js"
import type * as Key from "./Key.js"
import * as PoolPolicy from "./PoolPolicy.js"
import { Refusals } from "./Refusals.js"
import { Settings } from "./Settings.js"
import * as Shelf from "./Shelf.js"
import { ConnectionId, Demand, Keep } from "./Signal.js"
import { SignalBus } from "./SignalBus.js"
import { type Connection, Transport, TransportError } from "./Transport.js"

/** The peer named a connection that died, was flushed or never arrived. */
export class NotPooled extends Schema.TaggedError<NotPooled>()("NotPooled", { id: ConnectionId }) {
  override get message(): string {
    return `pool connection ${this.id} is gone`
  }
}

/** Every place for an idle connection is taken. */
export class PoolFull extends Schema.TaggedError<PoolFull>()("PoolFull", { limit: Schema.Number }) {
  override get message(): string {
    return `the client opened more than ${this.limit} idle pool connections`
  }
}

export interface Stats {
  /** Connections ready to be handed out. */
  readonly idle: number
  /** Idle connections the pool tends to; on the accepting side, all it would take in. */
  readonly capacity: number
  /** Visitors who wait for a connection. */
  readonly waiting: number
}

export class Pool extends Context.Tag("nodepass/Pool")<
  Pool,
  {
    /** Takes the connection that has been idle longest; waits while there is none. The caller's scope owns it. */
    readonly takeAny: Effect.Effect<
      { readonly id: ConnectionId; readonly connection: Connection },
      Shelf.ShelfClosed,
      Scope.Scope
    >
    /**
     * Takes the connection the peer named. The caller's scope owns it.
     *
     * A name may come before its connection does, so this waits up to `handshakeTimeout`, then fails with `NotPooled`.
     */
    readonly take: (id: ConnectionId) => Effect.Effect<Connection, NotPooled, Scope.Scope>
    /** Opens this many connections at once, as far as the capacity allows; no-op where the other side opens them. */
    readonly warm: (count: number) => Effect.Effect<void>
    /** Closes idle connections down to this many, where visitors come to this side; no-op where they do not. */
    readonly trim: (limit: number) => Effect.Effect<void>
    readonly stats: Effect.Effect<Stats>
  }
>() {}

export interface Options {
  readonly keys: Key.Session
  /** Idle connections at most. */
  readonly max: number
  /** Whether visitors come to this side, which then takes any connection, or to the other, which names one. */
  readonly visitors: "here" | "there"
}

export interface DialingOptions extends Options {
  /** The server's tunnel address. */
  readonly address: Address
  /** Idle connections at least; `max` where that is lower. */
  readonly min: number
  /** Handshakes under way at most. Defaults to `128`. */
  readonly concurrency?: number | undefined
}

/**
 * A pool that opens its connections.
 *
 * It refills on the policy's interval, and at once when a visitor waits or more than half of it is gone.
 */
export const layerDialing = (
  options: DialingOptions
): Layer.Layer<Pool, never, Refusals | Settings | SignalBus | Transport> =>
  Layer.scoped(
    Pool,
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const refusals = yield* Refusals
      const settings = yield* Settings
      const transport = yield* Transport
      const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
      const concurrency = options.concurrency ?? 128
      const dials = yield* FiberSet.make<void>()
      const policy: PoolPolicy.Options = {
        minCapacity: Math.min(options.min, options.max),
        maxCapacity: options.max,
        minInterval: settings.minPoolInterval,
        maxInterval: settings.maxPoolInterval
      }
      let { capacity } = PoolPolicy.initial(policy)
      let asked = 0
      let short = false
      let opening = 0
      let opened = 0
      let failed = 0
      let count = 0

      const shelf: Shelf.Shelf = yield* Shelf.make({
        expect: options.visitors === "here" ? "nothing" : "bytes",
        grace: settings.handshakeTimeout,
        onDemand: () => {
          const low = shelf.idle() + opening < capacity / 2
          if (low || asked > 0 || shelf.waiting() > opening) wake.unsafeOffer(undefined)
        }
      })

      const { address } = options
      const connect = Effect.timeoutFail(transport.connect(address), {
        duration: settings.handshakeTimeout,
        onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
      })

      const dial = Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Effect.gen(function* () {
          const connection = yield* connect
          const id = yield* Handshake.enter(connection, { keys: options.keys, count: count++ })
          opened++
          yield* shelf.add({ id, connection, scope })
          if (short) yield* Queue.offer(wake, undefined)
        }).pipe(
          Scope.extend(scope),
          Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
        )
      }).pipe(
        Effect.catchAll((error) => {
          failed++
          return refusals.count("dial", error, { tunnel: String(address) })
        }),
        Effect.ensuring(Effect.sync(() => opening--))
      )

      const refill = Effect.suspend(() => {
        const wanted = Math.max(capacity - shelf.idle(), shelf.waiting(), asked) - opening
        const missing = Math.min(wanted, options.max - shelf.idle() - opening, concurrency - opening)
        short = missing < wanted
        if (missing <= 0) return Effect.void
        asked = Math.max(0, asked - missing)
        opening += missing
        return Effect.replicateEffect(FiberSet.run(dials, dial), missing, { discard: true })
      })

      // Only the side that hands connections out can close one and hit no launch under way.
      const trim = (limit: number) => (options.visitors === "here" ? shelf.trim(limit) : Effect.void)
      const surplus = Effect.suspend(() =>
        options.visitors === "here" ? shelf.trim(capacity) : Effect.ignore(bus.send(new Keep({ count: capacity })))
      )

      const adapt = Effect.gen(function* () {
        const driver = yield* Schedule.driver(PoolPolicy.schedule(policy))
        let before = { at: yield* Clock.currentTimeMillis, taken: 0, opened: 0, failed: 0 }
        while (true) {
          const now = { at: yield* Clock.currentTimeMillis, taken: shelf.taken(), opened, failed }
          const seen = {
            elapsed: now.at - before.at,
            idle: shelf.idle(),
            taken: now.taken - before.taken,
            opened: now.opened - before.opened,
            failed: now.failed - before.failed
          }
          before = now
          capacity = (yield* Effect.orDie(driver.next(seen))).capacity
          if (shelf.idle() > capacity) yield* surplus
          yield* Queue.offer(wake, undefined)
        }
      })

      yield* refill
      yield* Effect.forkScoped(adapt)
      yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Queue.take(wake), refill)))

      return Pool.of({
        takeAny: shelf.takeAny,
        take: takeNamed(shelf, settings),
        warm: (visitors) =>
          Effect.suspend(() => {
            asked = Math.max(asked, visitors)
            return Effect.asVoid(Queue.offer(wake, undefined))
          }),
        trim,
        stats: Effect.sync(() => ({ idle: shelf.idle(), capacity, waiting: shelf.waiting() }))
      })
    })
  )

/** Where an authenticated newcomer of the tunnel port is brought into the pool of its session. */
export class Admission extends Context.Tag("nodepass/Pool/Admission")<
  Admission,
  {
    /** Checks the newcomer's seal, gives it an id and keeps it; `scope` is then the pool's to close. */
    readonly admit: (
      connection: Connection,
      options: { readonly line: string; readonly scope: Scope.CloseableScope }
    ) => Effect.Effect<void, Handshake.HandshakeError | PoolFull>
  }
>() {}

/** A pool that the client fills. A visitor who finds it empty has the client told at once. */
export const layerAccepting = (options: Options): Layer.Layer<Admission | Pool, never, Crypto | Settings | SignalBus> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const settings = yield* Settings
      const nextId = yield* makeIds
      const seen = makeOnce()
      const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)

      const shelf: Shelf.Shelf = yield* Shelf.make({
        expect: options.visitors === "here" ? "nothing" : "bytes",
        grace: settings.handshakeTimeout,
        onDemand: () => {
          if (shelf.waiting() > 0) wake.unsafeOffer(undefined)
        }
      })

      yield* Queue.take(wake).pipe(
        Effect.flatMap(() => {
          const count = shelf.waiting()
          return count === 0 ? Effect.void : bus.send(new Demand({ count }))
        }),
        Effect.forever,
        Effect.ignore,
        Effect.forkScoped
      )

      const pool = Pool.of({
        takeAny: shelf.takeAny,
        take: takeNamed(shelf, settings),
        warm: () => Effect.void,
        trim: (limit) => (options.visitors === "here" ? shelf.trim(limit) : Effect.void),
        stats: Effect.sync(() => ({ idle: shelf.idle(), capacity: options.max, waiting: shelf.waiting() }))
      })

      const admission = Admission.of({
        admit: (connection, { line, scope }) =>
          Effect.gen(function* () {
            const count = yield* Handshake.joined(connection, { keys: options.keys, line })
            if (!seen(count))
              return yield* new Handshake.HandshakeError({ reason: "Malformed", peer: connection.remote })
            if (shelf.idle() >= options.max) return yield* new PoolFull({ limit: options.max })
            const id = nextId()
            // The id goes out before anybody can take the connection, so that nothing overtakes it on the wire.
            yield* Handshake.admit(connection, { keys: options.keys, count, id })
            yield* shelf.add({ id, connection, scope })
          })
      })

      return Context.make(Pool, pool).pipe(Context.add(Admission, admission))
    })
  )

// internal

const takeNamed =
  (shelf: Shelf.Shelf, { handshakeTimeout }: Settings["Type"]): Pool["Type"]["take"] =>
  (id) =>
    shelf.take(id).pipe(
      Effect.map(({ connection }) => connection),
      Effect.timeoutFail({ duration: handshakeTimeout, onTimeout: () => new NotPooled({ id }) }),
      Effect.catchTag("ShelfClosed", () => new NotPooled({ id }))
    )

/** Ids that are all different until 2^32 were made: steps of an odd width from a random start. */
const makeIds: Effect.Effect<() => ConnectionId, never, Crypto> = Effect.gen(function* () {
  const crypto = yield* Crypto
  const random = yield* crypto.randomBytes(4)
  let next = new DataView(random.buffer, random.byteOffset).getUint32(0)
  return () => {
    next = (next + 0x9e3779b1) >>> 0
    return ConnectionId.make(next.toString(16).padStart(8, "0"))
  }
})

/** Says of each number whether it is new. Numbers come nearly in order: one too far behind the highest counts as old. */
const makeOnce = (): ((n: number) => boolean) => {
  const window = 65_536
  const recent = new Set<number>()
  let highest = -1
  return (n) => {
    if (n <= highest - window || recent.has(n)) return false
    if (n - highest > window) recent.clear()
    else for (let passed = highest + 1; passed <= n; passed++) recent.delete(passed - window)
    recent.add(n)
    highest = Math.max(highest, n)
    return true
  }
}
