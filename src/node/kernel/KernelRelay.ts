/**
 * The `Relay` of Linux: between two sockets of `KernelTransport` the kernel moves the bytes.
 *
 * All other exchanges go through this process, chunk by chunk, as with `PortableRelay.layer`: a connection that Node has opened, or
 * one whose writes still wait in this process.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Meter } from "../../relay/Meter.js"
import * as Kept from "../../relay/Kept.js"
import * as PortableRelay from "../../relay/PortableRelay.js"
import * as Relay from "../../relay/Relay.js"
import { RelayFactory } from "../../relay/RelayFactory.js"
import { type Bucket, Throttle } from "../../relay/Throttle.js"
import { StreamConnection } from "../../stream/StreamConnection.js"
import { type Connection, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as Congestion from "./Congestion.js"
import type * as InlineExchange from "./InlineExchange.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import * as KernelExchange from "./KernelExchange.js"
import type { Successor } from "./KernelSocket.js"
import type { DetachedSocket, Side } from "./reactor/ReactorMessages.js"
import * as RateGrant from "./reactor/RateGrant.js"
import * as Reactor from "./Reactor.js"
import type * as ReactorThread from "./ReactorThread.js"
import * as StreamExchange from "./StreamExchange.js"
import * as Sockets from "./ffi/Sockets.js"

/** A reactor that logs the failures of its threads. */
export const reactor = (
  kernel: Kernel,
  options?: Reactor.Options
): Effect.Effect<Reactor.Reactor, never, Scope.Scope> =>
  Effect.tap(Reactor.make(kernel, options), ({ failure }) =>
    Effect.forkScoped(
      Effect.forever(
        Effect.flatMap(failure, ({ cause, exchanges }) =>
          Effect.logWarning(
            `relay: a thread of the kernel relay failed and reset ${exchanges} visitors; starting another thread`
          ).pipe(Effect.annotateLogs({ why: String(cause) }))
        )
      )
    )
  )

/** Makes the relays of a host's tunnels, which share one reactor. */
export const layerFactory = (kernel: Kernel, options?: Reactor.Options): Layer.Layer<RelayFactory> =>
  Layer.scoped(
    RelayFactory,
    Effect.map(reactor(kernel, options), (reactor) => ({
      layer: (options) => layer({ ...options, kernel, reactor })
    }))
  )

export interface Options extends Relay.Options {
  readonly kernel: Kernel
  readonly reactor: Reactor.Reactor
}

export const make = (options: Options): Effect.Effect<Relay.Relay["Type"], never, Meter | Scope.Scope | Throttle> =>
  Effect.gen(function* () {
    const { kernel, reactor, ...relayOptions } = options
    const { traffic } = yield* Meter
    const portable = Context.get(
      yield* Layer.build(PortableRelay.layer({ ...relayOptions, congestion: undefined })),
      Relay.Relay
    )
    const congestion = Congestion.make(options.congestion ?? "auto", Congestion.choices(kernel), (fd, name) =>
      kernel.sockets.setText(fd, Sockets.options.congestion, name)
    )
    if (congestion.problem !== undefined) yield* Effect.logWarning(congestion.problem)
    const idle = options.idle ?? Duration.infinity
    const idleMillis = Duration.toMillis(idle)
    const throttle = yield* Throttle
    const clock = yield* Effect.clock
    const isVerbose = LogLevel.lessThanEqual(yield* FiberRef.get(FiberRef.currentMinimumLogLevel), LogLevel.Debug)
    const run = KernelExchange.make({ kernel, reactor, idleMillis })
    const begin = beginner({ run, clock, runFork: Runtime.runFork(yield* Effect.runtime()), throttle })
    const streamOptions: StreamExchange.Options = {
      idleMillis,
      begin: (sockets) => {
        congestion.apply(sockets[1].descriptor)
        return run(sockets, constVoid)
      }
    }
    const isThrottled = throttle.tx !== undefined || throttle.rx !== undefined
    const summaryOf = (near: Connection, far: Exchange["far"], running: KernelExchange.KernelExchange): Exchange => {
      const startedAt = clock.unsafeCurrentTimeMillis()
      return { near, far, startedAt, running, grants: noGrants, path: undefined, bytes: noBytes, isAttended: true }
    }
    /** Joins the socket with the stream, where no rate limits it. */
    const beginStream = (near: Connection, far: Connection): Exchange | undefined => {
      const socket = KernelConnection.socketOf(near)
      if (isThrottled || !(far instanceof StreamConnection) || socket?.canDetach() !== true) return undefined
      const running = StreamExchange.begin(streamOptions, socket, far)
      return running && summaryOf(near, far, running)
    }
    /** By the far connection. */
    const exchanges = new Map<Exchange["far"], Exchange>()
    let total = 0
    const drained = yield* Effect.makeLatch(true)
    const busy = yield* Effect.makeLatch(false)

    // Periodic work: bytes, idle limits, congestion control

    const countBytes = (exchange: Exchange) => {
      const { rx, tx } = exchange.running.bytes()
      traffic.tcpRx += rx - exchange.bytes.rx
      traffic.tcpTx += tx - exchange.bytes.tx
      exchange.bytes = { rx, tx }
    }
    const learn = (paths: ReadonlyArray<Relay.Path>) => {
      const change = congestion.learn(paths)
      if (change === undefined) return Effect.void
      for (const { running } of exchanges.values()) running.withFar(congestion.apply)
      return Effect.logInfo(change)
    }
    const periodMillis = Math.min(1000, Math.max(10, idleMillis / 4))
    const sweep = Effect.suspend(() => {
      const paths: Array<Relay.Path> = []
      for (const exchange of exchanges.values()) {
        countBytes(exchange)
        exchange.running.tick(periodMillis)
        paths.push(...measure(exchange))
      }
      return learn(paths)
    })
    yield* Effect.forkScoped(
      Effect.repeat(Effect.zipRight(busy.await, Effect.delay(sweep, Duration.millis(periodMillis))), Schedule.forever)
    )

    // Exchanges

    const add = (exchange: Exchange) => {
      exchanges.set(exchange.far, exchange)
      total++
      drained.unsafeClose()
      busy.unsafeOpen()
    }
    /** Removes an exchange that has ended. Returns what is to be logged. */
    const remove = (exchange: Exchange, { _tag }: KernelExchange.Result): Effect.Effect<void> => {
      if (!exchanges.delete(exchange.far)) return Effect.void
      countBytes(exchange)
      if (_tag === "Undone") traffic.tcpTx -= exchange.bytes.tx
      exchange.grants.near?.close(exchange.bytes.tx)
      exchange.grants.far?.close(exchange.bytes.rx)
      if (exchanges.size === 0) {
        busy.unsafeClose()
        drained.unsafeOpen()
      }
      const change = learn(measure(exchange))
      return isVerbose ? Effect.zipRight(change, Relay.logSummary(exchange)) : change
    }
    /** Resumes with the result of the exchange. The returned effect aborts it. */
    const complete = (exchange: Exchange, resume: (outcome: Outcome) => void): Effect.Effect<void> => {
      add(exchange)
      exchange.running.onEnd((result) =>
        resume(Effect.zipRight(remove(exchange, result), outcomeOf(result, { exchange, idle })))
      )
      return Effect.async<void>((resume) => {
        exchange.running.onEnd((result) => resume(remove(exchange, result)))
        exchange.running.abort()
      })
    }
    /** Joins a socket with a stream, which no fiber waits for. */
    const exchangeNow: Relay.Relay["Type"]["exchangeNow"] = (near, attendant) => {
      const socket = KernelConnection.socketOf(near)
      const far = socket?.canDetach() === true ? attendant.open() : undefined
      const running = socket && far && StreamExchange.begin(streamOptions, socket, far)
      if (far === undefined || running === undefined) return false
      const exchange = summaryOf(near, far, running)
      exchange.isAttended = false
      add(exchange)
      running.onEnd((result) => {
        const removed = remove(exchange, result)
        const isSilent = result._tag === "Done" && removed === Effect.void
        attendant.ended(isSilent ? undefined : Effect.zipRight(removed, outcomeOf(result, { exchange, idle })))
      })
      return true
    }
    const abortNow = Effect.sync(() => {
      for (const { isAttended, running } of Array.from(exchanges.values())) if (!isAttended) running.abort()
    })
    yield* Effect.addFinalizer(() => abortNow)
    return Relay.Relay.of({
      exchangeNow: isThrottled ? undefined : exchangeNow,
      abortNow,
      exchange: (near, far, options = {}) =>
        // One step: an interruption comes before the sockets are detached, or runs the finalizer below.
        Effect.async<void, TransportError | Relay.FarSilent | Relay.RelayIdle>((resume) => {
          const joined = beginStream(near, far)
          if (joined !== undefined) return complete(joined, resume)
          const [nearSocket, farSocket] = [KernelConnection.socketOf(near), KernelConnection.socketOf(far)]
          if (nearSocket?.canDetach() !== true || farSocket?.canDetach() !== true) {
            return resume(portable.exchange(near, far, options))
          }
          // The exchange owns both descriptors now: to reset one of the connections aborts the exchange.
          const successor: Successor = { close: constVoid, reset: () => exchange.running.abort() }
          const sockets = [nearSocket.detach(successor), farSocket.detach(successor)] as const
          // Before the exchange begins, which may close the descriptors at once.
          congestion.apply(sockets[1].descriptor)
          const giveBack = (near: DetachedSocket) => nearSocket.reattach(near)
          const keeper = options.keep === true ? { kept: Kept.make(), giveBack } : undefined
          // A session of TLS does not come back. Visitors have none: a tunnel passes their TLS on.
          if (nearSocket.tls !== undefined) keeper?.kept.drop()
          const exchange = begin(near, far, sockets, keeper)
          return complete(exchange, resume)
        }),
      progress: (far) => exchanges.get(far)?.running.progress() ?? portable.progress(far),
      undo: (far) =>
        Effect.suspend(() => {
          const exchange = exchanges.get(far)
          return exchange === undefined ? portable.undo(far) : Effect.succeed(exchange.running.undo())
        }),
      commit: (far) => {
        exchanges.get(far)?.running.commit()
        portable.commit(far)
      },
      count: Effect.map(portable.count, ({ live, total: carried }) => ({
        live: live + exchanges.size,
        total: total + carried
      })),
      drained: Effect.repeat(Effect.zipRight(portable.drained, drained.await), {
        until: () => Effect.map(portable.count, ({ live }) => live + exchanges.size === 0)
      }),
      description: "kernel"
    })
  })

/** Relays through this reactor what it can, and the rest as `PortableRelay.layer` does. */
export const layer = (options: Options): Layer.Layer<Relay.Relay, never, Meter | Throttle> =>
  Layer.scoped(Relay.Relay, make(options))

// internal

type Outcome = Effect.Effect<void, TransportError | Relay.FarSilent | Relay.RelayIdle>

interface Exchange extends Relay.Summary {
  readonly running: KernelExchange.KernelExchange
  /** By side, where there is a rate limit. */
  readonly grants: Record<Side, RateGrant.RateGrant | undefined>
  /** The last measurements of the far connection. */
  path: Relay.Path | undefined
  /** Bytes that the meter has counted. */
  bytes: ReactorThread.Bytes
  /** A fiber waits for its end. */
  isAttended: boolean
}

const noGrants = { near: undefined, far: undefined }
const noBytes = { rx: 0, tx: 0 }

interface BeginnerOptions {
  readonly run: ReturnType<typeof KernelExchange.make>
  readonly clock: Clock.Clock
  readonly runFork: ReturnType<typeof Runtime.runFork<never>>
  readonly throttle: Throttle["Type"]
}

/** Returns what begins an exchange between two detached sockets. */
const beginner =
  ({ clock, run, runFork, throttle }: BeginnerOptions) =>
  (
    near: Connection,
    far: Connection,
    [nearSocket, farSocket]: InlineExchange.Sockets,
    keeper: InlineExchange.Keeper | undefined
  ): Exchange => {
    const rateGrant = (bucket: Bucket | undefined, side: Side) =>
      bucket &&
      RateGrant.make({
        bucket,
        // Later: the bucket may have bytes at once, and the exchange is not there yet.
        fork: (effect) => runFork(effect, { immediate: false }),
        grant: (bytes) => exchange.running.grant(side, bytes)
      })
    const grants = { near: rateGrant(throttle.tx, "near"), far: rateGrant(throttle.rx, "far") }
    const exchange: Exchange = {
      near,
      far,
      startedAt: clock.unsafeCurrentTimeMillis(),
      running: run(
        [withCredit(nearSocket, grants.near), withCredit(farSocket, grants.far)],
        (side) => grants[side]?.request(),
        keeper
      ),
      grants,
      path: undefined,
      bytes: noBytes,
      isAttended: true
    }
    return exchange
  }

const withCredit = (socket: DetachedSocket, grant: RateGrant.RateGrant | undefined): DetachedSocket =>
  grant === undefined ? socket : { ...socket, allowance: RateGrant.creditBytes - socket.buffered.length }

/** Measurements of the far connection since the last call. */
const measure = (exchange: Exchange): ReadonlyArray<Relay.Path> => {
  const [before, path] = [exchange.path, exchange.running.path()]
  if (path === undefined) return []
  exchange.path = path
  const [segments, retransmitted] = [before?.segments ?? 0, before?.retransmitted ?? 0]
  return path.segments === segments
    ? []
    : [{ ...path, segments: path.segments - segments, retransmitted: path.retransmitted - retransmitted }]
}

/** What `Relay.exchange` completes with. */
const outcomeOf = (
  result: KernelExchange.Result,
  { exchange, idle }: { readonly exchange: Exchange; readonly idle: Duration.Duration }
): Effect.Effect<void, TransportError | Relay.FarSilent | Relay.RelayIdle> => {
  switch (result._tag) {
    case "Done":
      return Effect.void
    case "Undone":
      return new Relay.FarSilent({ far: exchange.far.remote })
    case "Idle":
      return Effect.flatMap(Relay.idleError(exchange, idle), Effect.fail)
    case "Broken":
      return Effect.fail(Errno.fromErrno(result.operation, exchange[result.side].remote, result.errno))
    case "Aborted":
      return Effect.fail(closed(exchange.near))
    case "ThreadExited":
      return Effect.fail(closed(exchange.near, result.cause))
  }
}

const closed = ({ remote }: Pick<Connection, "remote">, cause?: unknown): TransportError =>
  new TransportError({ operation: "read", address: remote, reason: "Closed", cause })
