/**
 * The way of the datagrams of each UDP session, both ways, until one side ends or both are silent.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { DatagramChannel } from "./DatagramChannel.js"
import { Meter } from "./Meter.js"
import { Throttle } from "./Throttle.js"
import type { TransportError } from "../transport/Transport.js"

export class DatagramRelay extends Context.Tag("nodepass/DatagramRelay")<
  DatagramRelay,
  {
    /**
     * Passes datagrams both ways until one of the flows ends or both were silent for the idle limit, to which
     * `patience` is added on a side that should rather be told of it by the other. Fails as a flow does.
     *
     * `near` is the visitor or the target, `far` the other end of the tunnel.
     */
    readonly exchange: (
      near: DatagramChannel,
      far: DatagramChannel,
      options?: { readonly patience?: Duration.Duration | undefined }
    ) => Effect.Effect<void, TransportError>
    /** Sessions under way, and begun so far. */
    readonly count: Effect.Effect<{ readonly live: number; readonly total: number }>
  }
>() {}

export interface Options {
  /** A session silent in both directions this long ends. Defaults to no limit. */
  readonly idle?: Duration.Duration | undefined
}

/**
 * A session to which nothing came back yet ends after this much silence, whatever the limit: the address of whoever
 * begins one may be made up.
 */
const unanswered = Duration.seconds(30)

interface Exchange {
  readonly ended: Deferred.Deferred<void, TransportError>
  readonly limitMillis: number
  answered: boolean
  /** Since the last look at it. */
  active: boolean
  /** What its ways had yet to take when it was looked at, and now. */
  unsent: number
  readonly unsentNow: () => number
  quietMillis: number
  readonly datagrams: { rx: number; tx: number }
}

export const layer = (options?: Options): Layer.Layer<DatagramRelay, never, Meter | Throttle> =>
  Layer.scoped(
    DatagramRelay,
    Effect.gen(function* () {
      const { traffic } = yield* Meter
      const throttle = yield* Throttle
      const limit = options?.idle ?? Duration.infinity
      const exchanges = new Set<Exchange>()
      let total = 0

      // One timer for all sessions: a datagram only sets a flag.
      const period = Duration.min(Duration.times(limit, 0.25), Duration.seconds(1))
      const sweep = Effect.sync(() => {
        for (const exchange of exchanges) {
          const { answered, limitMillis } = exchange
          const unsent = exchange.unsentNow()
          const active = exchange.active || unsent !== exchange.unsent
          exchange.unsent = unsent
          exchange.quietMillis = active ? 0 : exchange.quietMillis + Duration.toMillis(period)
          exchange.active = false
          const most = answered ? limitMillis : Math.min(limitMillis, Duration.toMillis(unanswered))
          if (exchange.quietMillis >= most) Deferred.unsafeDone(exchange.ended, Effect.void)
        }
      })
      yield* Effect.forkScoped(Effect.repeat(Effect.delay(sweep, period), Schedule.forever))

      const pump = (exchange: Exchange, from: DatagramChannel, to: DatagramChannel, direction: "rx" | "tx") => {
        const counter = direction === "rx" ? "udpRx" : "udpTx"
        const bucket = throttle[direction]
        const send =
          bucket === undefined
            ? to.send
            : (datagrams: ReadonlyArray<Uint8Array>) =>
                Effect.forEach(
                  datagrams,
                  (bytes) => Effect.zipRight(bucket.takeWhole(bytes.length), to.send([bytes])),
                  { discard: true }
                )
        const step: Effect.Effect<void, TransportError> = Effect.flatMap(from.receive, (datagrams) => {
          if (Option.isNone(datagrams)) return Effect.asVoid(Deferred.succeed(exchange.ended, undefined))
          exchange.active = true
          if (direction === "rx") exchange.answered = true
          exchange.datagrams[direction] += datagrams.value.length
          for (const { length } of datagrams.value) traffic[counter] += length
          return Effect.zipRight(send(datagrams.value), step)
        })
        return Effect.catchAll(step, (error) => Deferred.fail(exchange.ended, error))
      }

      return DatagramRelay.of({
        exchange: (near, far, { patience = Duration.zero } = {}) =>
          Effect.gen(function* () {
            const ended = yield* Deferred.make<void, TransportError>()
            const limitMillis = Duration.toMillis(limit) + Duration.toMillis(patience)
            const datagrams = { rx: 0, tx: 0 }
            const unsentNow = () => near.unsent() + far.unsent()
            const activity = { answered: false, active: true, unsent: 0, quietMillis: 0 }
            const exchange: Exchange = { ...activity, ended, limitMillis, unsentNow, datagrams }
            yield* Effect.acquireRelease(
              Effect.sync(() => {
                exchanges.add(exchange)
                total++
              }),
              () =>
                Effect.zipRight(
                  Effect.sync(() => exchanges.delete(exchange)),
                  Effect.logDebug("datagrams over").pipe(Effect.annotateLogs(datagrams), Effect.whenLogLevel("Debug"))
                )
            )
            yield* Effect.forkScoped(pump(exchange, far, near, "rx"))
            yield* Effect.forkScoped(pump(exchange, near, far, "tx"))
            yield* Deferred.await(ended)
          }).pipe(Effect.scoped),
        count: Effect.sync(() => ({ live: exchanges.size, total }))
      })
    })
  )
