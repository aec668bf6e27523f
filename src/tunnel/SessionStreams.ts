/**
 * The streams of one session: which pool connections are its carriers, how visitors get a stream, and where the streams of the
 * other side's visitors go.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import { constVoid } from "effect/Function"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Pool from "../pool/Pool.js"
import type { PoolConnection } from "../pool/WatchedConnections.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { Carrier } from "../stream/Carrier.js"
import * as ConnectionAdapter from "../stream/ConnectionAdapter.js"
import { Multiplexer } from "../stream/Multiplexer.js"
import { PooledConnection } from "../stream/PooledConnection.js"
import { StreamConnection } from "../stream/StreamConnection.js"
import * as StreamFrame from "../stream/StreamFrame.js"
import type { Listener, VisitorStream } from "../stream/VisitorStream.js"
import { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import * as Frame from "../wire/Frame.js"
import * as Signal from "../wire/Signal.js"
import { Streams } from "./Streams.js"

export interface SessionStreams {
  /** A stream for this visitor; `None` while no carrier is attached. The caller's scope owns it. */
  readonly open: (visit: Signal.Visit) => Effect.Effect<Option.Option<Connection>, never, Scope.Scope>
  /** The other side has chosen this pool connection for a carrier. Completes at once. */
  readonly onCarry: (signal: Signal.Carry) => Effect.Effect<void>
  /** Resets every stream, also those that were moved to a pool connection. */
  readonly abandon: Effect.Effect<void>
}

export interface Options {
  /** Whether visitors connect to this side or to the other. */
  readonly visitors: "local" | "remote"
  /** Connects a visitor of the other side to a target. `take` takes its stream. */
  readonly serve: (launch: Signal.Launch, take: Effect.Effect<Connection, never, Scope.Scope>) => Effect.Effect<void>
}

/** The session is over when the present scope closes. Its streams go on while their carriers are attached. */
export const make = ({ serve: connectToTarget, visitors }: Options) =>
  Effect.gen(function* () {
    const bus = yield* SignalBus
    const pool = yield* Pool.Pool
    const { register, scope } = yield* Streams
    const { poolGetTimeout, resumeGrace } = yield* Settings
    const own = yield* Scope.fork(scope, ExecutionStrategy.sequential)
    const fork = yield* Scope.extend(FiberSet.makeRuntime(), own)
    /** What is moved outlives the carriers. */
    const run = Runtime.runFork(yield* Effect.runtime())
    const awake = yield* Effect.makeLatch(false)
    /** Something is open, unacknowledged or without a connection: sweeps are needed. */
    const busy = yield* Effect.makeLatch(true)
    /** The pool connections that streams were moved to, or are about to be. */
    const pooled = new Set<Connection>()
    /** By the number of a carrier: called when its connection is lost or replaced. */
    const holders = new Map<number, () => void>()
    /** When a carrier was found without a connection, in milliseconds. */
    const detached = new Map<Carrier<VisitorStream>, number>()
    /** Another process that continued this session has used other numbers. */
    let nextNumber = yield* Random.nextIntBetween(1, 2 ** 31)
    let isOver = false
    /** A connection that was a carrier last. */
    let peer: Pick<Connection, "local" | "remote"> | undefined

    const clock = yield* Effect.clock
    const unconfirmed = makeUnconfirmed(clock, poolGetTimeout)

    const release = (number: number) => {
      holders.get(number)?.()
      holders.delete(number)
    }
    const multiplexer = new Multiplexer({
      visitors,
      maxStreams,
      idleMillis: Infinity,
      wake: () => {
        awake.unsafeOpen()
        busy.unsafeOpen()
      },
      opened: (stream, payload) => serve(stream, payload),
      lost: ({ number }) => {
        release(number)
        busy.unsafeOpen()
      },
      takePooled: () => {
        const taken = isOver ? undefined : pool.takeNow()
        return taken && { id: Number.parseInt(taken.id, 16), pooled: pooledOf(taken) }
      },
      findPooled: (number) => {
        const id = number.toString(16).padStart(8, "0")
        const taken = Signal.isConnectionId(id) ? pool.takeNow(id) : undefined
        return taken && pooledOf(taken)
      },
      failed: ({ number }, problem) => {
        release(number)
        fork(Effect.logWarning(`a connection with streams was reset: ${problem}`))
      }
    })

    const pooledOf = ({ connection, scope }: PoolConnection) => {
      const release = Effect.suspend(() => {
        pooled.delete(connection)
        return Scope.close(scope, Exit.void)
      })
      pooled.add(connection)
      return new PooledConnection({
        connection,
        reset: () => void run(Effect.zipRight(connection.reset, release)),
        release: () => void run(release)
      })
    }

    /** Whether a carrier is attached, or is between two connections, which takes some round trips. */
    const isUsable = () =>
      multiplexer.isAttached() ||
      [...multiplexer.carriers.values()].some(
        (carrier) => carrier.attempt > 0 && isRecent(detached.get(carrier), clock.unsafeCurrentTimeMillis())
      )

    // Streams

    const connect = (open: (connection: StreamConnection) => VisitorStream | undefined) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          if (peer === undefined) return Option.none()
          const connection = new StreamConnection(peer.local, peer.remote)
          const stream = open(connection)
          if (stream === undefined) return Option.none()
          connection.bind({
            reset: (code) => multiplexer.reset(stream, code),
            connect: (joined, listener) => {
              stream.listener = listener
              multiplexer.connect(stream, joined)
              return stream
            }
          })
          return Option.some(connection)
        }),
        (connection) => Effect.sync(() => Option.map(connection, (opened) => opened.resetNow()))
      )
    const open: SessionStreams["open"] = (visit) =>
      bus.isAttached() && isUsable()
        ? connect((connection) => {
            const stream = multiplexer.open(connection.carrierEnd, Frame.fromText(Signal.visitText(visit)), listener)
            if (stream !== undefined) unconfirmed.add(stream)
            return stream
          })
        : Effect.succeedNone
    const serve = (stream: VisitorStream, payload: Uint8Array) => {
      const visit = Signal.visitFromText(Frame.toText(payload))
      if (Either.isLeft(visit)) return multiplexer.reset(stream)
      stream.listener = listener
      const taken = connect((connection) => {
        multiplexer.connect(stream, connection.carrierEnd)
        return stream
      })
      const launch = Signal.makeLaunch({ ...visit.right, id: noId })
      fork(
        connectToTarget(
          launch,
          Effect.flatMap(
            taken,
            Option.match({ onNone: () => Effect.dieMessage("a stream without a carrier"), onSome: Effect.succeed })
          )
        )
      )
    }

    // Carriers

    /** Uses the connection for the carrier until it is lost or replaced. */
    const hold = (number: number, attempt: number, connection: Connection) =>
      Effect.flatMap(ConnectionAdapter.make(connection), (adapted) =>
        Effect.async<void>((resume) => {
          const known = multiplexer.carriers.get(number)
          if (known !== undefined && attempt <= known.attempt) return resume(connection.reset)
          release(number)
          holders.set(number, () => resume(connection.reset))
          peer = connection
          multiplexer.attach(number, attempt, adapted)
          // One that is refused is to be swept as well.
          busy.unsafeOpen()
          if (multiplexer.carriers.has(number)) return
          // A reset at once would overtake the answer that the carrier is over.
          holders.delete(number)
          resume(Effect.delay(connection.reset, refusalTime))
        })
      )
    /** Runs in the scope of the tunnel's streams, with a scope of its own. */
    const inBackground = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.forkIn(Effect.scoped(effect), own)

    /** Attaches the carrier once, and completes when the connection is lost. */
    const attachOnce = (carrier: Carrier<VisitorStream>) =>
      Effect.gen(function* () {
        const holding = yield* inBackground(
          Effect.gen(function* () {
            const { connection, id } = yield* pool.takeAny
            const attempt = carrier.attempt + 1
            yield* bus.send(new Signal.Carry({ id, carrier: carrier.number, attempt }))
            yield* hold(carrier.number, attempt, connection)
          })
        )
        return yield* Fiber.join(holding)
      })
    const keepAttached = Effect.suspend(() => {
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

    // Turns, and periodic work

    const turns = Effect.forever(
      awake.await.pipe(
        Effect.zipRight(
          Effect.sync(() => {
            awake.unsafeClose()
            multiplexer.turn()
          })
        ),
        Effect.zipRight(Effect.yieldNow())
      )
    )
    const isSettled = () =>
      multiplexer.counts().streams === 0 && [...multiplexer.carriers.values()].every((carrier) => carrier.isSettled())
    const end = () => {
      multiplexer.resetAll()
      multiplexer.turn()
      for (const carrier of multiplexer.carriers.values()) {
        multiplexer.endCarrier(carrier, StreamFrame.resets.stopped)
        release(carrier.number)
      }
    }
    const endDetached = (now: number) => {
      const graceMillis = isOver ? 0 : Duration.toMillis(resumeGrace)
      for (const carrier of multiplexer.carriers.values()) {
        if (carrier.state !== "Detached") {
          detached.delete(carrier)
          continue
        }
        const since = detached.get(carrier) ?? now
        detached.set(carrier, since)
        if (now - since < graceMillis) continue
        detached.delete(carrier)
        multiplexer.endCarrier(carrier, StreamFrame.resets.stopped)
      }
    }
    const sweep = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      for (const stream of unconfirmed.expired(now)) multiplexer.reset(stream)
      const trip = Option.match(yield* bus.roundTrip, { onNone: () => 0, onSome: Duration.toMillis })
      multiplexer.sweep(now, Math.max(leastLossMillis, 4 * trip))
      endDetached(now)
      if (!isOver && unconfirmed.isEmpty() && multiplexer.isQuiet()) busy.unsafeClose()
      return isOver && isSettled()
    })
    const unregister = register({ isSettled, end })
    yield* Effect.forkIn(turns, own)
    yield* Effect.forkIn(
      Effect.repeat(Effect.zipRight(busy.await, Effect.delay(sweep, sweepInterval)), {
        until: (isDone) => isDone
      }).pipe(
        Effect.zipRight(
          Effect.sync(() => {
            end()
            unregister()
          })
        ),
        Effect.zipRight(Effect.forkDaemon(Scope.close(own, Exit.void)))
      ),
      own
    )
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        isOver = true
        busy.unsafeOpen()
      })
    )
    if (visitors === "local") {
      for (let index = 0; index < carriers; index++) yield* Effect.forkScoped(keepAttached)
    }

    const streams: SessionStreams = {
      open,
      onCarry: ({ attempt, carrier, id }) =>
        Effect.asVoid(
          inBackground(Effect.ignore(Effect.flatMap(pool.take(id), (connection) => hold(carrier, attempt, connection))))
        ),
      abandon: Effect.suspend(() => {
        multiplexer.resetAll()
        return Effect.forEach(Array.from(pooled), ({ reset }) => reset, { discard: true })
      })
    }
    return streams
  })

// internal

/** How many carriers a session has. */
const carriers = 2

/** Streams of a session at most. The slots of the tunnel limit them before. */
const maxStreams = 1_000_000

const sweepInterval = Duration.millis(250)
/** A carrier by which nothing is acknowledged for so long, and for four round trips, is attached anew. */
const leastLossMillis = 2000

/** The other side closes the connection of a carrier that is over within this time. */
const refusalTime = Duration.seconds(2)

/** A carrier that lasted so long is attached again after the shortest pause, others after longer and longer ones. */
const steadyMillis = 50
const shortestPauseMillis = 2
const longestPauseMillis = 1000

/** A carrier that has been without a connection for longer than this gets no new stream. */
const betweenMillis = 1000
const isRecent = (since: number | undefined, now: number): boolean => since === undefined || now - since < betweenMillis

/** Streams have no pool connection. */
const noId = Signal.ConnectionId.make("00000000")

/** A stream's connection learns by itself how the stream ended. */
const listener: Listener = { ended: constVoid }

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

/**
 * Streams of which the other side has not confirmed that it knows them, in order of their opening. They are given up when that
 * takes too long, as launches are.
 */
const makeUnconfirmed = (clock: Clock.Clock, timeout: Duration.Duration) => {
  const entries = new Set<{ readonly stream: VisitorStream; readonly openedBefore: number; readonly at: number }>()
  const timeoutMillis = Duration.toMillis(timeout)
  return {
    isEmpty: () => entries.size === 0,
    add: (stream: VisitorStream) =>
      entries.add({ stream, openedBefore: stream.carrier.buffer.end, at: clock.unsafeCurrentTimeMillis() }),
    expired: (now: number): ReadonlyArray<VisitorStream> => {
      const expired: Array<VisitorStream> = []
      for (const entry of entries) {
        const { at, openedBefore, stream } = entry
        const isConfirmed = stream.isOver || stream.carrier.buffer.acknowledged >= openedBefore
        const isLate = now - at >= timeoutMillis
        if (isConfirmed || isLate) entries.delete(entry)
        if (!isConfirmed && isLate) expired.push(stream)
      }
      return expired
    }
  }
}
