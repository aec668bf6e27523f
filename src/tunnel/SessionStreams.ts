/**
 * The streams of one session: how visitors get a stream, and where the streams of the other side's visitors go.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberSet from "effect/FiberSet"
import { constVoid } from "effect/Function"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import { Refusals } from "../core/Refusals.js"
import * as Pool from "../pool/Pool.js"
import type { PoolConnection } from "../pool/WatchedConnections.js"
import { SignalBus } from "../signal/SignalBus.js"
import { Multiplexer } from "../stream/Multiplexer.js"
import { PooledConnection } from "../stream/PooledConnection.js"
import { StreamConnection } from "../stream/StreamConnection.js"
import { StreamHandle } from "../stream/StreamHandle.js"
import * as StreamFrame from "../stream/StreamFrame.js"
import type { Listener, VisitorStream } from "../stream/VisitorStream.js"
import { Settings } from "../transport/Settings.js"
import type { LaunchedStream } from "../relay/LaunchNow.js"
import type { Connection } from "../transport/Transport.js"
import * as Frame from "../wire/Frame.js"
import * as Signal from "../wire/Signal.js"
import * as CarrierConnections from "./CarrierConnections.js"
import { Streams } from "./Streams.js"
import { StreamsLost } from "./StreamsLost.js"
import * as UnconfirmedStreams from "./UnconfirmedStreams.js"

export interface SessionStreams {
  /** A stream for this visitor; `None` while no carrier is attached. The caller's scope owns it. */
  readonly open: (visit: Signal.Visit) => Effect.Effect<Option.Option<Connection>, never, Scope.Scope>
  /** As `open`, without a fiber: it is opened once it is joined, and `opened` is called. */
  readonly openNow: (visit: Signal.Visit, opened?: () => void) => StreamHandle | undefined
  /** The other side has chosen this pool connection for a carrier. Completes at once. */
  readonly onCarry: (signal: Signal.Carry) => Effect.Effect<void>
  /** Resets every stream, also those that were moved to a pool connection. */
  readonly abandon: Effect.Effect<void>
  /** The other side's process has ended: does the same, and begins new carriers. */
  readonly restart: Effect.Effect<void>
}

export interface Options {
  /** Whether visitors connect to this side or to the other. */
  readonly visitors: "local" | "remote"
  /** Connects a visitor of the other side to a target. Interrupted when the other side resets it before that begins. */
  readonly serve: (launch: Signal.Launch, source: StreamSource) => Effect.Effect<void>
  /** Does the same without a fiber, and returns whether it will; otherwise, nothing was begun. */
  readonly serveNow?: ((launch: Signal.Launch, stream: LaunchedStream) => boolean) | undefined
}

/** The stream of a visitor of the other side. */
export interface StreamSource extends Pick<LaunchedStream, "onOver"> {
  readonly take: Effect.Effect<Connection, never, Scope.Scope>
}

/** The session is over when the present scope closes. Its streams go on while their carriers are attached. */
export const make = ({ serve: connectToTarget, serveNow, visitors }: Options) =>
  Effect.gen(function* () {
    const bus = yield* SignalBus
    const pool = yield* Pool.Pool
    const refusals = yield* Refusals
    const { register, scope } = yield* Streams
    const { poolGetTimeout, resumeGrace } = yield* Settings
    const own = yield* Scope.fork(scope, ExecutionStrategy.sequential)
    const fork = yield* Scope.extend(FiberSet.makeRuntime(), own)
    /** What is moved outlives the carriers. */
    const run = Runtime.runFork(yield* Effect.runtime())
    /** Something is open, unacknowledged or without a connection: sweeps are needed. */
    const busy = yield* Effect.makeLatch(true)
    /** The pool connections that streams were moved to, or are about to be. */
    const pooled = new Set<Connection>()
    let isOver = false

    const clock = yield* Effect.clock
    const scheduler = yield* FiberRef.get(FiberRef.currentScheduler)
    /** As the step of a fiber would run, without one. */
    const turn = () => {
      try {
        multiplexer.turn()
      } catch (defect) {
        fork(Effect.die(defect))
      }
    }
    const unconfirmed = UnconfirmedStreams.make(clock, poolGetTimeout)

    const multiplexer = new Multiplexer({
      visitors,
      maxStreams,
      idleMillis: Infinity,
      wake: () => {
        scheduler.scheduleTask(turn, 0)
        busy.unsafeOpen()
      },
      opened: (stream, payload) => serve(stream, payload),
      lost: ({ number }, how) => {
        if (how === "Silent") connections.releaseSilent(number)
        else connections.release(number)
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
      unanswered: () => void fork(count("Unanswered", 1)),
      failed: ({ number }, problem) => {
        connections.release(number)
        fork(Effect.logWarning(`a connection with streams was reset: ${problem}`))
      }
    })

    const connections = yield* CarrierConnections.make({
      multiplexer,
      visitors,
      scope: own,
      // One that is refused is to be swept as well.
      onAttach: () => busy.unsafeOpen()
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
        ({ attempt, awaySince }) => attempt > 0 && isRecent(awaySince, clock.unsafeCurrentTimeMillis())
      )

    // Streams

    const connect = (open: (connection: StreamConnection) => VisitorStream | undefined) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const peer = connections.last()
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
    const payloadOf = (visit: Signal.Visit) => Frame.fromText(Signal.visitText(visit))
    const open: SessionStreams["open"] = (visit) =>
      bus.isAttached() && isUsable()
        ? connect((connection) => {
            const stream = multiplexer.open(connection.carrierEnd, payloadOf(visit), listener)
            if (stream !== undefined) unconfirmed.add(stream)
            return stream
          })
        : Effect.succeedNone
    const openNow: SessionStreams["openNow"] = (visit, opened) => {
      const peer = connections.last()
      if (peer === undefined || !bus.isAttached() || !isUsable()) return undefined
      const confirm = (stream: VisitorStream) => {
        unconfirmed.add(stream)
        opened?.()
      }
      return new StreamHandle(multiplexer, peer.remote, { payload: payloadOf(visit), opened: confirm })
    }
    const serve = (stream: VisitorStream, payload: Uint8Array) => {
      const visit = Signal.visitFromText(Frame.toText(payload))
      if (Either.isLeft(visit)) return multiplexer.reset(stream)
      const launch = Signal.makeLaunch({ ...visit.right, id: noId })
      const serveByFiber = () => {
        if (stream.isOver) return
        stream.listener = listener
        const taken = connect((connection) => {
          multiplexer.connect(stream, connection.carrierEnd)
          return stream
        })
        const take = Effect.flatMap(
          taken,
          Option.match({ onNone: () => Effect.dieMessage("a stream without a carrier"), onSome: Effect.succeed })
        )
        const serving = fork(connectToTarget(launch, { take, onOver }))
        // Until its turn to be dialled has come.
        if (stream.listener === listener) onOver(() => serving.unsafeInterruptAsFork(FiberId.none))
      }
      const onOver = (ended: () => void) => {
        if (stream.isOver) ended()
        else stream.listener = { ended }
      }
      stream.listener = listener
      const peer = connections.last()
      const isServed =
        peer !== undefined &&
        serveNow?.(launch, {
          handle: new StreamHandle(multiplexer, peer.remote, stream),
          onOver,
          serveByFiber
        }) === true
      if (!isServed) serveByFiber()
    }

    // Turns, and periodic work

    const isSettled = () =>
      multiplexer.counts().streams === 0 && [...multiplexer.carriers.values()].every((carrier) => carrier.isSettled())
    const end = () => {
      multiplexer.resetAll()
      multiplexer.turn()
      for (const carrier of multiplexer.carriers.values()) {
        multiplexer.endCarrier(carrier, StreamFrame.resets.stopped)
        connections.release(carrier.number)
      }
    }
    const count = (reason: StreamsLost["reason"], times: number) =>
      times === 0 ? Effect.void : refusals.count("launch", new StreamsLost({ reason }), { times })
    /** Ends the carriers that have had no connection for the grace period, or have none when the session is over. */
    const endAway = (now: number) => {
      const graceMillis = Duration.toMillis(resumeGrace)
      let lost = 0
      for (const carrier of multiplexer.carriers.values()) {
        const { awaySince, state, streams } = carrier
        const isLate = awaySince !== undefined && now - awaySince >= graceMillis
        if (!isLate && !(isOver && state === "Detached")) continue
        lost += streams
        multiplexer.endCarrier(carrier, StreamFrame.resets.stopped)
        connections.release(carrier.number)
      }
      return count(isOver ? "Over" : "Late", lost)
    }
    const sweep = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const expired = unconfirmed.expire(now)
      for (const stream of expired) multiplexer.reset(stream)
      yield* count("Unconfirmed", expired.length)
      const trip = Option.match(yield* bus.roundTrip, { onNone: () => 0, onSome: Duration.toMillis })
      multiplexer.sweep(now, Math.max(leastLossMillis, 4 * trip))
      yield* endAway(now)
      if (!isOver && unconfirmed.isEmpty() && multiplexer.isQuiet()) busy.unsafeClose()
      return isOver && isSettled()
    })
    const unregister = register({ isSettled, end })
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
    if (visitors === "local") yield* connections.keepAttached

    const resetPooled = Effect.suspend(() =>
      Effect.forEach(Array.from(pooled), ({ reset }) => reset, { discard: true })
    )
    const streams: SessionStreams = {
      open,
      openNow,
      onCarry: connections.onCarry,
      abandon: Effect.suspend(() => {
        multiplexer.resetAll()
        return resetPooled
      }),
      restart: Effect.suspend(() => {
        const numbers = Array.from(multiplexer.carriers.keys())
        const { streams } = multiplexer.counts()
        multiplexer.restart()
        for (const number of numbers) connections.release(number)
        return Effect.zipRight(count("Restarted", streams), resetPooled)
      })
    }
    return streams
  })

// internal

/** Streams of a session at most. The slots of the tunnel limit them before. */
const maxStreams = 1_000_000

const sweepInterval = Duration.millis(250)
/** A carrier by which nothing is acknowledged for so long, and for four round trips, is attached anew. */
const leastLossMillis = 2000

/** A carrier that has been without a connection for longer than this gets no new stream. */
const betweenMillis = 1000
const isRecent = (since: number | undefined, now: number): boolean => since === undefined || now - since < betweenMillis

/** Streams have no pool connection. */
const noId = Signal.ConnectionId.make("00000000")

/** A stream's connection learns by itself how the stream ended. */
const listener: Listener = { ended: constVoid }
