/**
 * The `Relay` that leaves the bytes to the kernel where it can: between sockets that are ours by their descriptors, on Linux.
 *
 * All else goes through this process as ever, such as a connection that Node has opened, or that holds bytes to be written.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Meter } from "../../relay/Meter.js"
import * as Relay from "../../relay/Relay.js"
import { RelayFactory } from "../../relay/RelayFactory.js"
import { type Bucket, Throttle } from "../../relay/Throttle.js"
import { type Connection, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as KernelConnection from "./KernelConnection.js"
import * as Congestion from "./Congestion.js"
import type { Kernel } from "./Kernel.js"
import type { Halves } from "./InlineExchange.js"
import type { Half, Way } from "./reactor/SharedState.js"
import * as RateGrant from "./reactor/RateGrant.js"
import * as KernelExchange from "./KernelExchange.js"
import * as Reactor from "./Reactor.js"
import type * as ReactorThread from "./ReactorThread.js"
import * as Sockets from "./ffi/Sockets.js"

/** A reactor whose deaths are logged. */
export const reactor = (
  kernel: Kernel,
  options?: Reactor.Options
): Effect.Effect<Reactor.Reactor, never, Scope.Scope> =>
  Effect.tap(Reactor.make(kernel, options), ({ died }) =>
    Effect.forkScoped(
      Effect.forever(
        Effect.flatMap(died, ({ cause, exchanges }) =>
          Effect.logWarning(`relay: the kernel relay died, and ${exchanges} visitors with it; another takes over`).pipe(
            Effect.annotateLogs({ why: String(cause) })
          )
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

export interface LayerOptions extends Relay.Options {
  readonly kernel: Kernel
  readonly reactor: Reactor.Reactor
}

/** Relays through this reactor what it can, and the rest as `Relay.layer` does. */
export const layer = ({
  kernel,
  reactor,
  ...options
}: LayerOptions): Layer.Layer<Relay.Relay, never, Meter | Throttle> =>
  Layer.scoped(
    Relay.Relay,
    Effect.gen(function* () {
      const { traffic } = yield* Meter
      const throttle = yield* Throttle
      const clock = yield* Effect.clock
      const runFork = Runtime.runFork(yield* Effect.runtime())
      const fork = (effect: Effect.Effect<void>) => runFork(effect, { immediate: false })
      const portable = Context.get(yield* Layer.build(Relay.layer({ ...options, congestion: undefined })), Relay.Relay)
      const congestion = Congestion.make(options.congestion ?? "auto", Congestion.choices(kernel), (fd, name) =>
        kernel.sockets.setText(fd, Sockets.options.congestion, name)
      )
      if (congestion.problem !== undefined) yield* Effect.logWarning(congestion.problem)
      const idle = options.idle ?? Duration.infinity
      const idleMillis = Duration.toMillis(idle)
      const begin = KernelExchange.make({ kernel, reactor, idleMillis })
      const exchanges = new Set<Exchange>()
      let total = 0
      const drained = yield* Effect.makeLatch(true)
      const busy = yield* Effect.makeLatch(false)

      const count = (exchange: Exchange) => {
        const { rx, tx } = exchange.running.bytes()
        traffic.tcpRx += rx - exchange.bytes.rx
        traffic.tcpTx += tx - exchange.bytes.tx
        exchange.bytes = { rx, tx }
      }
      const period = Math.min(1000, Math.max(10, idleMillis / 4))
      const learn = (paths: ReadonlyArray<Relay.Path>) => {
        const change = congestion.learn(paths)
        if (change === undefined) return Effect.void
        for (const { running } of exchanges) running.withFar(congestion.apply)
        return Effect.logInfo(change)
      }
      const look = Effect.suspend(() => {
        const paths: Array<Relay.Path> = []
        for (const exchange of exchanges) {
          count(exchange)
          exchange.running.tick(period)
          paths.push(...news(exchange))
        }
        return learn(paths)
      })
      yield* Effect.forkScoped(
        Effect.repeat(Effect.zipRight(busy.await, Effect.delay(look, Duration.millis(period))), Schedule.forever)
      )

      const start = ({ far, near }: Pick<Exchange, "far" | "near">, [nearHalf, farHalf]: Halves): Exchange => {
        const passage = (bucket: Bucket | undefined, way: Way) =>
          bucket && RateGrant.make({ bucket, fork, grant: (bytes) => exchange.running.grant(way, bytes) })
        const passages = { near: passage(throttle.tx, "near"), far: passage(throttle.rx, "far") }
        congestion.apply(farHalf.descriptor)
        const exchange: Exchange = {
          near,
          far,
          began: clock.unsafeCurrentTimeMillis(),
          running: begin([limited(nearHalf, passages.near), limited(farHalf, passages.far)], (way) =>
            passages[way]?.want()
          ),
          passages,
          path: undefined,
          bytes: { rx: 0, tx: 0 }
        }
        exchanges.add(exchange)
        total++
        drained.unsafeClose()
        busy.unsafeOpen()
        return exchange
      }
      /** Answers with what is to be said of it. */
      const leave = (exchange: Exchange): Effect.Effect<void> => {
        if (!exchanges.delete(exchange)) return Effect.void
        count(exchange)
        exchange.passages.near?.settle(exchange.bytes.tx)
        exchange.passages.far?.settle(exchange.bytes.rx)
        if (exchanges.size === 0) {
          busy.unsafeClose()
          drained.unsafeOpen()
        }
        return Effect.zipRight(learn(news(exchange)), Effect.whenLogLevel(Relay.report(exchange), "Debug"))
      }
      const settle = (
        exchange: Exchange,
        outcome: KernelExchange.Outcome
      ): Effect.Effect<void, TransportError | Relay.RelayIdle> => {
        switch (outcome._tag) {
          case "Done":
            return Effect.void
          case "Idle":
            return Effect.fail(new Relay.RelayIdle({ limit: idle }))
          case "Broken":
            return Effect.fail(Errno.fromErrno(outcome.operation, exchange[outcome.side].remote, outcome.errno))
          case "Aborted":
            return Effect.fail(closed(exchange.near))
          case "Died":
            return Effect.fail(closed(exchange.near, outcome.cause))
        }
      }

      return Relay.Relay.of({
        exchange: (near, far) =>
          // One step: who is interrupted has given nothing away yet, or waits for the end of all.
          Effect.async<void, TransportError | Relay.RelayIdle>((resume) => {
            const [nearBelow, farBelow] = [KernelConnection.below(near), KernelConnection.below(far)]
            if (nearBelow?.isWhole() !== true || farBelow?.isWhole() !== true) {
              return resume(portable.exchange(near, far))
            }
            // Its descriptor is given away: who resets one of the two connections resets both.
            const heir: KernelConnection.Heir = { close: constVoid, reset: () => exchange.running.abort() }
            const exchange: Exchange = start({ near, far }, [nearBelow.release(heir), farBelow.release(heir)])
            exchange.running.onOver((outcome) => resume(Effect.zipRight(leave(exchange), settle(exchange, outcome))))
            return Effect.async<void>((resume) => {
              exchange.running.onOver(() => resume(leave(exchange)))
              exchange.running.abort()
            })
          }),
        count: Effect.map(portable.count, ({ live, total: carried }) => ({
          live: live + exchanges.size,
          total: total + carried
        })),
        drained: Effect.repeat(Effect.zipRight(portable.drained, drained.await), {
          until: () => Effect.map(portable.count, ({ live }) => live + exchanges.size === 0)
        }),
        way: "kernel"
      })
    })
  )

// internal

interface Exchange extends Relay.Carried {
  readonly running: KernelExchange.KernelExchange
  /** By where they begin, if there is a rate. */
  readonly passages: Record<Way, RateGrant.RateGrant | undefined>
  /** How the far connection had fared at the last look. */
  path: Relay.Path | undefined
  /** Counted so far. */
  bytes: ReactorThread.Bytes
}

/** How the far connection has fared since the last look. */
const news = (exchange: Exchange): ReadonlyArray<Relay.Path> => {
  const [before, path] = [exchange.path, exchange.running.path()]
  if (path === undefined) return []
  exchange.path = path
  const [segments, retransmitted] = [before?.segments ?? 0, before?.retransmitted ?? 0]
  return path.segments === segments
    ? []
    : [{ ...path, segments: path.segments - segments, retransmitted: path.retransmitted - retransmitted }]
}

const limited = (half: Half, passage: RateGrant.RateGrant | undefined): Half =>
  passage === undefined ? half : { ...half, allowance: RateGrant.credit - half.ahead.length }

const closed = ({ remote }: Connection, cause?: unknown): TransportError =>
  new TransportError({ operation: "read", address: remote, reason: "Closed", cause })
