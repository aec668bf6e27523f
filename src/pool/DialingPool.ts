/**
 * The pool of the client: it opens the connections, and keeps as many idle as its policy requires.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { Deadlines } from "../core/Deadlines.js"
import type { EventBus } from "../core/EventBus.js"
import type { HandshakeError } from "../wire/HandshakeError.js"
import * as PoolHandshake from "../wire/PoolHandshake.js"
import * as Key from "../wire/Key.js"
import * as JoinCounts from "./JoinCounts.js"
import * as Pool from "./Pool.js"
import * as PoolPolicy from "./PoolPolicy.js"
import { type RefusalError, Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import * as IdleConnections from "./IdleConnections.js"
import type { PoolConnection } from "./WatchedConnections.js"
import { Keep } from "../wire/Signal.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { TlsError, Trust } from "../transport/Tls.js"
import { Transport, TransportError } from "../transport/Transport.js"

export interface Options extends Pool.Options {
  /** The keys that the session has now. */
  readonly keys: () => Key.SessionKeys
  /** The server's tunnel address. */
  readonly address: Address
  /** The fewest idle connections to keep; `max` where that is lower. */
  readonly min: number
  /** How the server's certificate is verified, where pool connections use TLS. */
  readonly trust: () => Option.Option<Trust>
  /** The counts of the session's connections. Defaults to those of a new session. */
  readonly counts?: JoinCounts.JoinCounts | undefined
  /** The most handshakes at a time. Defaults to `128`. */
  readonly concurrency?: number | undefined
}

/**
 * A pool that opens its connections.
 *
 * It refills at the policy's interval, and at once when a visitor waits or less than half of the capacity is idle. With
 * TLS the first connection is opened before the layer is built, which then fails as that does.
 */
export const layer = (
  options: Options
): Layer.Layer<
  Pool.Pool,
  HandshakeError | TlsError | TransportError,
  Deadlines | EventBus | PoolPolicy.PoolPolicy | Refusals | Settings | SignalBus | Transport
> => Layer.scoped(Pool.Pool, make(options))

// internal

/** What the parts of a pool share. */
interface Supply {
  readonly connections: IdleConnections.IdleConnections
  readonly dials: FiberSet.FiberSet<void>
  /** Wakes the refill. */
  readonly wake: Queue.Queue<void>
  /** Connections to keep idle. */
  capacity: number
  /** Connections that a burst is expected to take, kept idle until it has taken them; and how many were taken before. */
  expected: number
  takenBefore: number
  /** Connections that the server asked for, in addition. */
  requested: number
  /** Dials under way. */
  opening: number
  /** Dials that succeeded so far, and that failed. */
  opened: number
  failed: number
  /** The last dial failed. */
  failing: boolean
  /** The last refill dialled less than it wanted: the end of a dial is followed by another refill. */
  short: boolean
  /** The control connection is lost: visitors wait for it, and another process of the server would refuse what is dialled. */
  isAway: boolean
  /** The session ends. */
  isStopped: boolean
}

const make = (options: Options) =>
  Effect.gen(function* () {
    const settings = yield* Settings
    const policy = yield* PoolPolicy.PoolPolicy
    const bounds: PoolPolicy.Options = {
      minCapacity: Math.min(options.min, options.max),
      maxCapacity: options.max,
      minInterval: settings.minPoolInterval,
      maxInterval: settings.maxPoolInterval
    }
    const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
    const dials = yield* FiberSet.make<void>()
    const connections = yield* IdleConnections.make({
      ...Pool.idleOptions(options, settings),
      onDemand: () => {
        const low = connections.idle() + supply.opening < targetOf(supply) / 2
        if (low || supply.requested > 0 || connections.waiting() > supply.opening) wake.unsafeOffer(undefined)
      }
    })
    const supply: Supply = {
      connections,
      dials,
      wake,
      capacity: Math.min(policy.initialCapacity(bounds), options.max),
      expected: 0,
      takenBefore: 0,
      requested: 0,
      opening: 0,
      opened: 0,
      failed: 0,
      failing: false,
      short: false,
      isAway: false,
      isStopped: false
    }
    const level = yield* Pool.makeLevel(connections, () => Math.max(supply.capacity, supply.expected))
    const open = yield* makeOpen(options, (pooled) => {
      supply.opened++
      supply.failing = false
      return Effect.zipRight(connections.add(pooled), level.publish)
    })
    const refill = yield* makeRefill(options, supply, open)
    const operations = Pool.operations(connections, options)
    const bus = yield* SignalBus
    const unwatch = bus.watch((attached) => {
      supply.isAway = !attached
      if (attached) wake.unsafeOffer(undefined)
    })
    yield* Effect.addFinalizer(() => Effect.sync(unwatch))
    const dropSurplus = Effect.suspend(() => {
      const target = targetOf(supply)
      // Only the side that hands the connections out may close them.
      return options.visitors === "local"
        ? operations.trim(target)
        : Effect.ignore(bus.send(new Keep({ count: target })))
    })

    if (Option.isSome(options.trust())) yield* open
    yield* refill
    yield* Effect.forkScoped(followPolicy(policy, bounds, supply, dropSurplus))
    yield* Effect.forkScoped(
      Effect.forever(Queue.take(wake).pipe(Effect.zipRight(refill), Effect.zipRight(level.publish)))
    )

    return Pool.Pool.of({
      ...operations,
      discard: Effect.suspend(() => {
        // What failed was the way to the process that has ended.
        supply.failing = false
        return Effect.zipRight(operations.discard, Queue.offer(wake, undefined))
      }),
      warm: (visitors) =>
        Effect.suspend(() => {
          supply.requested = Math.max(supply.requested, visitors)
          return Effect.asVoid(Queue.offer(wake, undefined))
        }),
      stop: Effect.suspend(() => {
        supply.isStopped = true
        return FiberSet.clear(dials)
      }),
      stats: Effect.sync(level.stats)
    })
  })

/** Connections to keep idle now. */
const targetOf = ({ capacity, connections, expected, takenBefore }: Supply): number =>
  Math.max(capacity, expected - (connections.taken() - takenBefore))

/** Opens one connection, authenticates it and adds it to the pool. */
const makeOpen = ({ address, counts, keys, trust }: Options, add: (pooled: PoolConnection) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const transport = yield* Transport
    const { handshakeTimeout } = yield* Settings
    const nextCount = yield* makeCounter(counts ?? JoinCounts.make())
    const connect = deadlines.limit(transport.connect(address), {
      duration: handshakeTimeout,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
    })
    const enter = Effect.flatMap(connect, (connection) =>
      Effect.onError(
        Effect.flatMap(nextCount, (count) => PoolHandshake.enter(connection, { keys: keys(), count, trust: trust() })),
        // The server may have launched it already, and its visitor must not take an end for an answer.
        () => connection.reset
      )
    )
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.make(), (scope) =>
        Effect.matchCauseEffect(restore(Scope.extend(enter, scope)), {
          onFailure: (cause) => Effect.zipRight(Scope.close(scope, Exit.failCause(cause)), Effect.failCause(cause)),
          onSuccess: (entered) => add({ ...entered, scope })
        })
      )
    )
  })

/** Numbers that no pool connection of the session had before, from a later block once the keys of the block are old. */
const makeCounter = (counts: JoinCounts.JoinCounts) =>
  Effect.gen(function* () {
    const { handshakeTimeout, keyLifetime } = yield* Settings
    const clock = yield* Effect.clock
    const start = clock.unsafeCurrentTimeMillis()
    const first = Math.ceil(counts.next() / Key.blockLength)
    // So long that a handshake under way is at most one block behind.
    const lifetime = Duration.toMillis(Duration.max(keyLifetime, handshakeTimeout))
    return Effect.suspend(() => {
      const block = Math.floor((clock.unsafeCurrentTimeMillis() - start) / lifetime)
      return counts.draw(block === 0 ? 0 : (first + block) * Key.blockLength)
    })
  })

/** Dials the connections that are missing, each in a fiber of its own. */
const makeRefill = <E extends RefusalError, R>(
  { address, concurrency = 128, max }: Options,
  supply: Supply,
  open: Effect.Effect<void, E, R>
) =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const { connections, dials, wake } = supply
    const dial = Effect.matchEffect(open, {
      onFailure: (error) => {
        supply.opening--
        supply.failed++
        supply.failing = true
        return refusals.count("dial", error, { details: { tunnel: String(address) } })
      },
      onSuccess: () => {
        supply.opening--
        if (supply.short) wake.unsafeOffer(undefined)
        return Effect.void
      }
    })
    return Effect.suspend(() => {
      const { failing, isAway, isStopped, opening, requested } = supply
      if (isStopped || isAway) return Effect.void
      const wanted = Math.max(targetOf(supply) - connections.idle(), connections.waiting(), requested) - opening
      // After a failure one dial at a time: what is wrong with all of them must not become a flood.
      const atOnce = failing ? 1 : concurrency
      const missing = Math.min(wanted, max - connections.idle() - opening, atOnce - opening)
      supply.short = missing < wanted
      if (missing <= 0) return Effect.void
      supply.requested = Math.max(0, requested - missing)
      supply.opening += missing
      return Effect.replicateEffect(FiberSet.run(dials, dial), missing, { discard: true })
    })
  })

/** Sets the capacity by the policy, step by step, for ever. */
const followPolicy = (
  policy: PoolPolicy.PoolPolicy["Type"],
  bounds: PoolPolicy.Options,
  supply: Supply,
  dropSurplus: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    const { connections, wake } = supply
    const driver = yield* Schedule.driver(policy.schedule(bounds))
    let last = { at: yield* Clock.currentTimeMillis, taken: 0, opened: 0, failed: 0 }
    while (true) {
      const { failed, opened } = supply
      const now = { at: yield* Clock.currentTimeMillis, taken: connections.taken(), opened, failed }
      const observed: PoolPolicy.Observed = {
        elapsed: now.at - last.at,
        idle: connections.idle(),
        taken: now.taken - last.taken,
        opened: now.opened - last.opened,
        failed: now.failed - last.failed
      }
      last = now
      const next = yield* Effect.option(driver.next(observed))
      // A policy that has ended leaves its last capacity in force.
      if (Option.isNone(next)) yield* Effect.sleep(bounds.maxInterval)
      else {
        supply.capacity = Math.min(next.value.capacity, bounds.maxCapacity)
        supply.expected = Math.min(next.value.expected ?? 0, bounds.maxCapacity)
        // What was taken while the policy waited is not in its figures yet.
        supply.takenBefore = last.taken
      }
      if (connections.idle() > targetOf(supply)) yield* dropSurplus
      yield* Queue.offer(wake, undefined)
    }
  })
