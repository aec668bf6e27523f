/**
 * The `Relay` that leaves the bytes to the kernel where it can: between plain TCP sockets, on Linux, with no rate set.
 *
 * All else goes through this process as ever: TLS must be worked on, and a rate has its say over every chunk.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { getSystemErrorName } from "node:util"
import { Meter } from "../../Meter.js"
import * as Relay from "../../Relay.js"
import { Throttle } from "../../Throttle.js"
import { type Connection, TransportError } from "../../Transport.js"
import { type Below, below, failure } from "../NodeConnection.js"
import type { Half } from "./Ledger.js"
import * as Reactor from "./Reactor.js"

export interface Options {
  /**
   * Who moves the bytes. Defaults to `portable`: this process.
   *
   * `kernel` and `auto` are the kernel where it can be had; where it cannot, `kernel` warns of it.
   */
  readonly relay?: "portable" | "kernel" | "auto" | undefined
}

/** The host's way to relay: one thread for all its tunnels. */
export const layerWay = ({ relay = "portable" }: Options): Layer.Layer<never> =>
  relay === "portable"
    ? Layer.empty
    : Layer.scoped(
        Relay.Way,
        Effect.match(reactor, {
          onSuccess: (reactor) => ({
            layer: (options?: Relay.Options) =>
              layer({ ...options, reactor, level: relay === "kernel" ? "Info" : "Debug" })
          }),
          onFailure: ({ message }) => {
            const explained = Layer.effectDiscard(
              say(relay === "kernel" ? "Warning" : "Debug", `relay: portable, since ${message}`)
            )
            return { layer: (options?: Relay.Options) => Layer.provide(Relay.layer(options), explained) }
          }
        })
      )

/** A reactor whose deaths are logged. */
export const reactor: Effect.Effect<Reactor.Reactor, Reactor.ReactorUnavailable, Scope.Scope> = Effect.tap(
  Reactor.make,
  ({ died }) =>
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

export interface LayerOptions extends Relay.Options {
  readonly reactor: Reactor.Reactor
  /** How loud it says at the start who moves the bytes. Defaults to `Info`. */
  readonly level?: "Info" | "Debug" | undefined
}

/** Relays through this reactor what it can, and the rest as `Relay.layer` does. */
export const layer = ({
  level = "Info",
  reactor,
  ...options
}: LayerOptions): Layer.Layer<Relay.Relay, never, Meter | Throttle> =>
  Layer.scoped(
    Relay.Relay,
    Effect.gen(function* () {
      const { traffic } = yield* Meter
      const throttle = yield* Throttle
      const portable = Context.get(yield* Layer.build(Relay.layer(options)), Relay.Relay)
      if (throttle.rx !== undefined || throttle.tx !== undefined) {
        yield* say(level, "relay: portable, since a rate is set")
        return portable
      }
      yield* say(level, "relay: kernel, for connections without TLS")
      const idle = options.idle ?? Duration.infinity
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
      const countAll = Effect.sync(() => exchanges.forEach(count))
      yield* Effect.forkScoped(
        Effect.repeat(Effect.zipRight(busy.await, Effect.delay(countAll, "1 seconds")), Schedule.forever)
      )

      const enter = (exchange: Exchange) => {
        exchanges.add(exchange)
        total++
        drained.unsafeClose()
        busy.unsafeOpen()
      }
      const leave = (exchange: Exchange) =>
        Effect.suspend(() => {
          count(exchange)
          exchanges.delete(exchange)
          if (exchanges.size === 0) {
            busy.unsafeClose()
            drained.unsafeOpen()
          }
          return Effect.whenLogLevel(Relay.report(exchange), "Debug")
        })
      const settle = (
        exchange: Exchange,
        outcome: Reactor.Outcome
      ): Effect.Effect<void, TransportError | Relay.RelayIdle> => {
        switch (outcome._tag) {
          case "Done":
            return Effect.void
          case "Idle":
            return Effect.fail(new Relay.RelayIdle({ limit: idle }))
          case "Broken":
            return Effect.fail(broken(exchange[outcome.side], outcome.operation, outcome.errno))
          case "Aborted":
            return Effect.fail(closed(exchange.near))
          case "Died":
            return Effect.fail(closed(exchange.near, outcome.cause))
        }
      }

      return Relay.Relay.of({
        exchange: (near, far) =>
          Effect.flatMap(Clock.currentTimeMillis, (began) =>
            Effect.uninterruptibleMask((restore) =>
              Effect.suspend(() => {
                const running = handOver(reactor, near, far, Duration.toMillis(idle))
                if (running === undefined) return restore(portable.exchange(near, far))
                const exchange: Exchange = { near, far, began, running, bytes: { rx: 0, tx: 0 } }
                enter(exchange)
                return restore(running.ended).pipe(
                  Effect.onInterrupt(() => running.abort),
                  Effect.flatMap((outcome) => settle(exchange, outcome)),
                  Effect.ensuring(leave(exchange))
                )
              })
            )
          ),
        count: Effect.map(portable.count, ({ live, total: carried }) => ({
          live: live + exchanges.size,
          total: total + carried
        })),
        drained: Effect.repeat(Effect.zipRight(portable.drained, drained.await), {
          until: () => Effect.map(portable.count, ({ live }) => live + exchanges.size === 0)
        })
      })
    })
  )

// internal

const say = (level: "Warning" | "Info" | "Debug", sentence: string) =>
  Effect.logWithLevel(LogLevel.fromLiteral(level), sentence)

interface Exchange extends Relay.Carried {
  readonly running: Reactor.Exchange
  /** Counted so far. */
  bytes: Reactor.Bytes
}

/** Takes both connections off Node, all at once; `undefined`, and nothing has changed, where that cannot be done. */
const handOver = (
  reactor: Reactor.Reactor,
  near: Connection,
  far: Connection,
  idleMillis: number
): Reactor.Exchange | undefined => {
  const [nearBelow, farBelow] = [plain(near), plain(far)]
  if (nearBelow === undefined || farBelow === undefined) return undefined
  const begin = reactor.prepare()
  if (begin === undefined) return undefined
  const [nearCopy, farCopy] = [duplicate(reactor, nearBelow), duplicate(reactor, farBelow)]
  if (nearCopy === undefined || farCopy === undefined) {
    for (const copy of [nearCopy, farCopy]) if (copy !== undefined) reactor.close(copy)
    return undefined
  }
  return begin(detach(nearBelow, nearCopy), detach(farBelow, farCopy), idleMillis)
}

/** What is below a connection that is nothing but its socket, and whole. */
const plain = (connection: Connection): Below | undefined => {
  const found = below.get(connection)
  return found !== undefined && found.socket === found.tcp && found.isWhole() ? found : undefined
}

const duplicate = (reactor: Reactor.Reactor, { socket }: Below): number | undefined => {
  // No public way leads to it.
  const handle: unknown = Reflect.get(socket, "_handle")
  const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined
  return typeof fd === "number" && fd >= 0 ? reactor.duplicate(fd) : undefined
}

/** To close one of two descriptors says nothing to the peer. Node reads nothing in between: that is for its next turn. */
const detach = ({ socket, takeAhead }: Below, descriptor: number): Half => {
  const ahead = joined(takeAhead())
  socket.destroy()
  return { descriptor, ahead }
}

/** In memory of their own: a chunk may be part of a larger piece, all of which a thread would be sent. */
const joined = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}

const broken = (connection: Connection, operation: "read" | "write", errno: number): TransportError => {
  const code = errno > 0 ? getSystemErrorName(-errno) : "UNKNOWN"
  return failure(operation, connection.remote, Object.assign(new Error(`${operation} ${code}`), { code, errno }))
}

const closed = ({ remote }: Connection, cause?: unknown): TransportError =>
  new TransportError({ operation: "read", address: remote, reason: "Closed", cause })
