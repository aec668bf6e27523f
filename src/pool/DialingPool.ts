/**
 * The pool of the side that opens the connections: kept filled, a little ahead of its visitors.
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
import * as Handshake from "../wire/Handshake.js"
import * as Key from "../wire/Key.js"
import * as Pool from "./Pool.js"
import * as PoolPolicy from "./PoolPolicy.js"
import { Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import * as IdleConnections from "./IdleConnections.js"
import { Keep } from "../wire/Signal.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { TlsError, Trust } from "../transport/Tls.js"
import { Transport, TransportError } from "../transport/Transport.js"

export interface Options extends Pool.Options {
  /** The session's, as they are now. */
  readonly keys: () => Key.SessionKeys
  /** The server's tunnel address. */
  readonly address: Address
  /** Idle connections at least; `max` where that is lower. */
  readonly min: number
  /** What the server's certificate is held to, where data connections are secured. */
  readonly trust: Option.Option<Trust>
  /** Handshakes under way at most. Defaults to `128`. */
  readonly concurrency?: number | undefined
}

/**
 * A pool that opens its connections.
 *
 * It refills on the policy's interval, and at once when a visitor waits or more than half of it is gone. Where data
 * connections are secured the first one is opened before the layer is built, which fails with what is wrong with it.
 */
export const layer = (
  options: Options
): Layer.Layer<
  Pool.Pool,
  Handshake.HandshakeError | TlsError | TransportError,
  Deadlines | EventBus | PoolPolicy.PoolPolicy | Refusals | Settings | SignalBus | Transport
> =>
  Layer.scoped(
    Pool.Pool,
    Effect.gen(function* () {
      const bus = yield* SignalBus
      const deadlines = yield* Deadlines
      const refusals = yield* Refusals
      const settings = yield* Settings
      const transport = yield* Transport
      const wake = yield* Effect.acquireRelease(Queue.dropping<void>(1), Queue.shutdown)
      const concurrency = options.concurrency ?? 128
      const dials = yield* FiberSet.make<void>()
      const policy = yield* PoolPolicy.PoolPolicy
      const bounds: PoolPolicy.Options = {
        minCapacity: Math.min(options.min, options.max),
        maxCapacity: options.max,
        minInterval: settings.minPoolInterval,
        maxInterval: settings.maxPoolInterval
      }
      let capacity = Math.min(policy.initialCapacity(bounds), options.max)
      let asked = 0
      let short = false
      let troubled = false
      let opening = 0
      let opened = 0
      let failed = 0
      let count = 0

      const connections: IdleConnections.IdleConnections = yield* IdleConnections.make({
        ...Pool.idleOptions(options, settings),
        onDemand: () => {
          const low = connections.idle() + opening < capacity / 2
          if (low || asked > 0 || connections.waiting() > opening) wake.unsafeOffer(undefined)
        }
      })

      const stats = (): Pool.Stats => ({ idle: connections.idle(), capacity, waiting: connections.waiting() })
      const level = yield* Pool.levels(stats)

      const { address } = options
      const connect = deadlines.limit(transport.connect(address), {
        duration: settings.handshakeTimeout,
        onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
      })

      const { keys, trust } = options
      const clock = yield* Effect.clock
      const began = clock.unsafeCurrentTimeMillis()
      // Handshakes under way count at most one block back.
      const lifetime = Duration.toMillis(Duration.max(settings.keyLifetime, settings.handshakeTimeout))
      /** A number that no pool connection had before, in a later block once this one's keys are old. */
      const number = () => {
        const block = Math.floor((clock.unsafeCurrentTimeMillis() - began) / lifetime)
        count = Math.max(count, block * Key.blockLength)
        return count++
      }
      const open = Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Scope.make(), (scope) => {
          // By a reset: it may have been launched already, and its visitor must not take an end for an answer.
          const entered = Effect.flatMap(connect, (connection) =>
            Effect.onError(
              Handshake.enter(connection, { keys: keys(), count: number(), trust }),
              () => connection.reset
            )
          )
          return Effect.matchCauseEffect(restore(Scope.extend(entered, scope)), {
            onFailure: (cause) => Effect.zipRight(Scope.close(scope, Exit.failCause(cause)), Effect.failCause(cause)),
            onSuccess: (entered) => {
              opened++
              troubled = false
              return Effect.zipRight(connections.add({ ...entered, scope }), level)
            }
          })
        })
      )
      const dial = Effect.matchEffect(open, {
        onFailure: (error) => {
          opening--
          failed++
          troubled = true
          return refusals.count("dial", error, { details: { tunnel: String(address) } })
        },
        onSuccess: () => {
          opening--
          if (short) wake.unsafeOffer(undefined)
          return Effect.void
        }
      })

      const refill = Effect.suspend(() => {
        const wanted = Math.max(capacity - connections.idle(), connections.waiting(), asked) - opening
        // While they fail one at a time is tried, so that what is wrong for all does not become a flood.
        const together = troubled ? 1 : concurrency
        const missing = Math.min(wanted, options.max - connections.idle() - opening, together - opening)
        short = missing < wanted
        if (missing <= 0) return Effect.void
        asked = Math.max(0, asked - missing)
        opening += missing
        return Effect.replicateEffect(FiberSet.run(dials, dial), missing, { discard: true })
      })

      const takes = Pool.operations(connections, options)
      const surplus = Effect.suspend(() =>
        options.visitors === "local" ? takes.trim(capacity) : Effect.ignore(bus.send(new Keep({ count: capacity })))
      )

      const adapt = Effect.gen(function* () {
        const driver = yield* Schedule.driver(policy.schedule(bounds))
        let before = { at: yield* Clock.currentTimeMillis, taken: 0, opened: 0, failed: 0 }
        while (true) {
          const now = { at: yield* Clock.currentTimeMillis, taken: connections.taken(), opened, failed }
          const seen = {
            elapsed: now.at - before.at,
            idle: connections.idle(),
            taken: now.taken - before.taken,
            opened: now.opened - before.opened,
            failed: now.failed - before.failed
          }
          before = now
          const next = yield* Effect.option(driver.next(seen))
          // A policy that has ended leaves its last capacity in force.
          if (Option.isNone(next)) yield* Effect.sleep(bounds.maxInterval)
          else capacity = Math.min(next.value.capacity, options.max)
          if (connections.idle() > capacity) yield* surplus
          yield* Queue.offer(wake, undefined)
        }
      })

      if (Option.isSome(trust)) yield* open
      yield* refill
      yield* Effect.forkScoped(adapt)
      yield* Effect.forkScoped(Effect.forever(Queue.take(wake).pipe(Effect.zipRight(refill), Effect.zipRight(level))))

      return Pool.Pool.of({
        ...takes,
        warm: (visitors) =>
          Effect.suspend(() => {
            asked = Math.max(asked, visitors)
            return Effect.asVoid(Queue.offer(wake, undefined))
          }),
        stats: Effect.sync(stats)
      })
    })
  )
