/**
 * The pool connections that are the carriers of a session. The side that visitors connect to chooses them, and attaches
 * another one to a carrier whose connection is lost.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { Pool } from "../pool/Pool.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { Carrier } from "../stream/Carrier.js"
import * as ConnectionAdapter from "../stream/ConnectionAdapter.js"
import type { Multiplexer } from "../stream/Multiplexer.js"
import type { VisitorStream } from "../stream/VisitorStream.js"
import type { Connection } from "../transport/Transport.js"
import * as Signal from "../wire/Signal.js"

export interface CarrierConnections {
  /** Keeps the carriers attached, each by a fiber, until the present scope closes. Run it where visitors connect to this side. */
  readonly keepAttached: Effect.Effect<void, never, Scope.Scope>
  /** The other side has chosen this pool connection for a carrier. Completes at once. */
  readonly onCarry: (signal: Signal.Carry) => Effect.Effect<void>
  /** The connection of the carrier with this number is lost: closes it. */
  readonly release: (number: number) => void
  /**
   * The same for one that has carried nothing, in silence. The idle connections have probably died as well, and are replaced,
   * so that the carrier does not try one after the other.
   */
  readonly releaseSilent: (number: number) => void
  /** The connection that became a carrier last. */
  readonly last: () => Pick<Connection, "local" | "remote"> | undefined
}

export interface Options {
  readonly multiplexer: Multiplexer
  /** Whether visitors connect to this side or to the other. */
  readonly visitors: "local" | "remote"
  /** Owns the connections, which outlive the session. */
  readonly scope: Scope.Scope
  /** A connection was attached, or refused. */
  readonly onAttach: () => void
}

export const make = ({
  multiplexer,
  onAttach,
  scope,
  visitors
}: Options): Effect.Effect<CarrierConnections, never, Pool | SignalBus> =>
  Effect.gen(function* () {
    const bus = yield* SignalBus
    const pool = yield* Pool
    /** By the number of a carrier: called when its connection is lost or replaced. */
    const holders = new Map<number, () => void>()
    /** Another process that continued this session has used other numbers. */
    let nextNumber = yield* Random.nextIntBetween(1, 2 ** 31)
    let last: Connection | undefined
    const clock = yield* Effect.clock
    const run = Runtime.runFork(yield* Effect.runtime())
    let replacedAt = -Infinity

    const release = (number: number) => {
      holders.get(number)?.()
      holders.delete(number)
    }
    const replaceIdle = Effect.logInfo(
      "a carrier's connection carried nothing: continuing over another one, and replacing the idle ones"
    ).pipe(
      // Nothing else tells the other side that its ends are dead, and they may be as many as it may have.
      Effect.zipRight(Effect.ignore(bus.send(new Signal.Flush()))),
      Effect.zipRight(pool.trim(0))
    )
    const releaseSilent = (number: number) => {
      release(number)
      const now = clock.unsafeCurrentTimeMillis()
      // Only the side that takes any connection may close them.
      if (visitors === "remote" || now - replacedAt < replaceEveryMillis) return
      replacedAt = now
      run(replaceIdle)
    }
    /** Uses the connection for the carrier until it is lost or replaced. */
    const hold = (number: number, attempt: number, connection: Connection) =>
      Effect.flatMap(ConnectionAdapter.make(connection), (adapted) =>
        Effect.async<void>((resume) => {
          const known = multiplexer.carriers.get(number)
          if (known !== undefined && attempt <= known.attempt) return resume(connection.reset)
          release(number)
          holders.set(number, () => resume(connection.reset))
          last = connection
          multiplexer.attach(number, attempt, adapted)
          onAttach()
          if (multiplexer.carriers.has(number)) return
          // A reset at once would overtake the answer that the carrier is over.
          holders.delete(number)
          resume(Effect.delay(connection.reset, refusalTime))
        })
      )
    /** Runs with a scope of its own, and outlives the caller. */
    const inBackground = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.forkIn(Effect.scoped(effect), scope)

    /** Attaches the carrier once, and completes when the connection is lost. */
    const attachOnce = (carrier: Carrier<VisitorStream>) =>
      Effect.flatMap(
        inBackground(
          Effect.gen(function* () {
            const { connection, id } = yield* pool.takeAny
            const attempt = carrier.attempt + 1
            yield* bus.send(new Signal.Carry({ id, carrier: carrier.number, attempt }))
            yield* hold(carrier.number, attempt, connection)
          })
        ),
        Fiber.join
      )
    const keepOne = Effect.suspend(() => {
      let carrier: Carrier<VisitorStream> | undefined
      let pauseMillis = shortestPauseMillis
      return Effect.forever(
        Effect.gen(function* () {
          yield* untilAttached(bus)
          if (carrier === undefined || carrier.state === "Over") carrier = multiplexer.carrier(nextNumber++)
          const since = yield* Clock.currentTimeMillis
          yield* Effect.ignore(attachOnce(carrier))
          const lasted = (yield* Clock.currentTimeMillis) - since
          pauseMillis = lasted >= steadyMillis ? shortestPauseMillis : Math.min(2 * pauseMillis, longestPauseMillis)
          yield* Effect.sleep(pauseMillis)
        })
      )
    })

    return {
      keepAttached: Effect.replicateEffect(Effect.forkScoped(keepOne), carriers, { discard: true }),
      onCarry: ({ attempt, carrier, id }) =>
        Effect.asVoid(
          inBackground(Effect.ignore(Effect.flatMap(pool.take(id), (connection) => hold(carrier, attempt, connection))))
        ),
      release,
      releaseSilent,
      last: () => last
    }
  })

// internal

/** How many carriers a session has. */
const carriers = 2

/** The connections that died together are found within this time. Where all die, new ones are not opened in a loop. */
const replaceEveryMillis = 10_000

/** The other side closes the connection of a carrier that is over within this time. */
const refusalTime = Duration.seconds(2)

/** A carrier that lasted so long is attached again after the shortest pause, others after longer and longer ones. */
const steadyMillis = 50
const shortestPauseMillis = 2
const longestPauseMillis = 1000

/** Completes once the session has a control connection. */
const untilAttached = (bus: Pick<SignalBus["Type"], "isAttached" | "watch">): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (bus.isAttached()) return resume(Effect.void)
    const unwatch = bus.watch((attached) => {
      if (!attached) return
      unwatch()
      resume(Effect.void)
    })
    return Effect.sync(unwatch)
  })
