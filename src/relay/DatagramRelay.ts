/**
 * Copies the datagrams of each UDP session, both ways, until one side ends or both are silent.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { DatagramChannel } from "./DatagramChannel.js"
import * as Kept from "./Kept.js"
import { Meter } from "./Meter.js"
import { FarSilent, type Progress, type Relay } from "./Relay.js"
import type { UdpSlot } from "./Slots.js"
import { Throttle } from "./Throttle.js"
import type { Connection, TransportError } from "../transport/Transport.js"

export class DatagramRelay extends Context.Tag("nodepass/DatagramRelay")<
  DatagramRelay,
  {
    /**
     * Copies datagrams both ways until one channel ends or both were silent for the idle limit. Fails as a channel does.
     *
     * `near` is the visitor or the target, `far` the other end of the tunnel. Fails with `FarSilent` after `undo`: the far
     * connection was reset, and with `keep` the near channel has its datagrams back.
     */
    readonly exchange: (
      near: DatagramChannel,
      far: DatagramChannel,
      options: ExchangeOptions
    ) => Effect.Effect<void, FarSilent | TransportError>
    /** As in `Relay`, of datagrams, by the connection of the far channel. */
    readonly progress: (far: Connection) => Progress | undefined
    readonly undo: Relay["Type"]["undo"]
    readonly commit: Relay["Type"]["commit"]
    /** Sessions now (`live`), and started so far. */
    readonly count: Effect.Effect<{ readonly live: number; readonly total: number }>
  }
>() {}

export interface ExchangeOptions {
  /** The channel that the visitor's datagrams come from. */
  readonly visitor: "near" | "far"
  /** The slot of the session. */
  readonly slot: UdpSlot
  /** As in `Relay`: whether to keep what comes from `near` until something comes from `far`. Defaults to `false`. */
  readonly keep?: boolean | undefined
  /** Added to the idle limit on a side that leaves it to the other side to end the session. Defaults to zero. */
  readonly idleMargin?: Duration.Duration | undefined
}

export interface Options {
  /**
   * A two-way session that is silent in both directions for this long ends; any other session after 30 s at most.
   * Defaults to no limit.
   */
  readonly idle?: Duration.Duration | undefined
}

export const layer = (options?: Options): Layer.Layer<DatagramRelay, never, Meter | Throttle> =>
  Layer.scoped(
    DatagramRelay,
    Effect.gen(function* () {
      const meter = yield* Meter
      const { traffic } = meter
      const pump = makePump(meter, yield* Throttle)
      const limit = options?.idle ?? Duration.infinity
      const exchanges = new Set<Exchange>()
      const byConnection = new Map<Connection, Exchange>()
      let total = 0
      yield* Effect.forkScoped(endIdle(exchanges, Duration.min(Duration.times(limit, 0.25), Duration.seconds(1))))

      const enter = (exchange: Exchange) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            exchanges.add(exchange)
            if (exchange.far.connection !== undefined) byConnection.set(exchange.far.connection, exchange)
            total++
          }),
          () => {
            exchanges.delete(exchange)
            if (exchange.far.connection !== undefined) byConnection.delete(exchange.far.connection)
            return Effect.whenLogLevel(logEnd(exchange), "Debug")
          }
        )

      return DatagramRelay.of({
        exchange: (near, far, { idleMargin = Duration.zero, keep = false, slot, visitor }) =>
          Effect.gen(function* () {
            const ended = yield* Deferred.make<void, FarSilent | TransportError>()
            const startedAt = yield* Clock.currentTimeMillis
            const millis = (limit: Duration.Duration) => Duration.toMillis(limit) + Duration.toMillis(idleMargin)
            const limits = { oneWayMillis: millis(Duration.min(limit, oneWayLimit)), twoWayMillis: millis(limit) }
            const datagrams = { rx: 0, tx: 0 }
            const activity = { active: true, unsent: 0, silentMillis: 0, undone: false }
            const fromVisitor = visitor === "near" ? "tx" : "rx"
            const kept = keep ? Kept.make() : undefined
            const ends = { near, far, ended, slot, fromVisitor, startedAt, kept } as const
            const exchange: Exchange = { ...ends, state: "unanswered", ...limits, datagrams, ...activity }
            yield* enter(exchange)
            yield* Effect.forkScoped(pump(exchange, "rx"))
            yield* Effect.forkScoped(pump(exchange, "tx"))
            yield* Deferred.await(ended)
          }).pipe(
            Effect.scoped,
            Effect.tapErrorTag("FarSilent", () => far.connection?.reset ?? Effect.void)
          ),
        progress: (far) => {
          const exchange = byConnection.get(far)
          return exchange && { sent: exchange.datagrams.tx > 0, received: hasReceived(exchange) }
        },
        undo: (far) =>
          Effect.suspend(() => {
            const exchange = byConnection.get(far)
            if (exchange === undefined || exchange.undone || hasReceived(exchange)) return Effect.succeed(false)
            const { ended, kept, near } = exchange
            const chunks = kept?.chunks()
            if (kept !== undefined && chunks === undefined) return Effect.succeed(false)
            exchange.undone = true
            for (const { length } of chunks ?? []) traffic.udpTx -= length
            if (chunks !== undefined) near.unreceive?.(chunks)
            return Deferred.fail(ended, new FarSilent({ far: far.remote }))
          }),
        commit: (far) => byConnection.get(far)?.kept?.drop(),
        count: Effect.sync(() => ({ live: exchanges.size, total }))
      })
    })
  )

// internal

/** A connection that brings a large datagram slowly is not dead. */
const hasReceived = ({ datagrams, far }: Exchange): boolean => datagrams.rx > 0 || far.hasReceived?.() === true

/** The idle limit of a session that is not two-way: its visitor asked once, or has a forged address. As in conntrack. */
const oneWayLimit = Duration.seconds(30)

interface Exchange {
  readonly near: DatagramChannel
  readonly far: DatagramChannel
  readonly ended: Deferred.Deferred<void, FarSilent | TransportError>
  readonly kept: Kept.Kept | undefined
  readonly slot: UdpSlot
  /** The direction of the visitor's datagrams. */
  readonly fromVisitor: "rx" | "tx"
  readonly startedAt: number
  readonly oneWayMillis: number
  readonly twoWayMillis: number
  /** `twoWay`: the visitor has sent again after the first answer, which no forged address can do. */
  state: "unanswered" | "answered" | "twoWay"
  /** A datagram was received since the last check for silence. */
  active: boolean
  /** Bytes that the channels had not sent at the last check. */
  unsent: number
  silentMillis: number
  /** It ends as `FarSilent`. */
  undone: boolean
  readonly datagrams: { rx: number; tx: number }
}

const limitMillis = ({ oneWayMillis, state, twoWayMillis }: Exchange) =>
  state === "twoWay" ? twoWayMillis : oneWayMillis

/** At debug: silence is how a UDP session ends in the usual case, so that info would have a line for every question. */
const logEnd = (exchange: Exchange) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const age = Duration.format(Duration.millis(now - exchange.startedAt))
    const limit = limitMillis(exchange)
    const reason =
      exchange.silentMillis < limit ? "" : `: silent in both directions for ${Duration.format(Duration.millis(limit))}`
    return Effect.annotateLogs(Effect.logDebug(`UDP session ended${reason}, ${age} after it began`), exchange.datagrams)
  })

/** Copies one direction: `rx` from far to near, `tx` from near to far. */
const makePump =
  ({ traffic }: Meter["Type"], throttle: Throttle["Type"]) =>
  (exchange: Exchange, direction: "rx" | "tx"): Effect.Effect<void> => {
    const { datagrams, ended, far, kept, near } = exchange
    const [from, to] = direction === "rx" ? [far, near] : [near, far]
    const counter = direction === "rx" ? "udpRx" : "udpTx"
    const bucket = throttle[direction]
    const send =
      bucket === undefined
        ? to.send
        : (datagrams: ReadonlyArray<Uint8Array>) =>
            Effect.forEach(datagrams, (bytes) => Effect.zipRight(bucket.takeWhole(bytes.length), to.send([bytes])), {
              discard: true
            })
    const step: Effect.Effect<void, TransportError> = Effect.flatMap(from.receive, (received) => {
      if (Option.isNone(received)) return Effect.asVoid(Deferred.succeed(ended, undefined))
      if (exchange.undone) {
        if (direction === "tx") near.unreceive?.(received.value)
        return Effect.never
      }
      exchange.active = true
      updateState(exchange, direction)
      datagrams[direction] += received.value.length
      if (direction === "rx") kept?.drop()
      else if (kept?.isKeeping() === true) for (const bytes of received.value) kept.add(bytes)
      for (const { length } of received.value) traffic[counter] += length
      return Effect.zipRight(send(received.value), step)
    })
    return Effect.catchAll(step, (error) => Deferred.fail(ended, error))
  }

const updateState = (exchange: Exchange, direction: "rx" | "tx") => {
  exchange.slot.touch()
  if (exchange.state === "twoWay") return
  if (direction !== exchange.fromVisitor) exchange.state = "answered"
  else if (exchange.state === "answered") {
    exchange.state = "twoWay"
    exchange.slot.confirm()
  }
}

/** Ends the sessions that were silent for their limit. One timer for all: a datagram only sets a flag. */
const endIdle = (exchanges: ReadonlySet<Exchange>, period: Duration.Duration) => {
  const periodMillis = Duration.toMillis(period)
  const sweep = Effect.sync(() => {
    for (const exchange of exchanges) {
      const unsent = exchange.near.unsent() + exchange.far.unsent()
      const active = exchange.active || unsent !== exchange.unsent
      exchange.unsent = unsent
      exchange.silentMillis = active ? 0 : exchange.silentMillis + periodMillis
      exchange.active = false
      if (exchange.silentMillis >= limitMillis(exchange)) Deferred.unsafeDone(exchange.ended, Effect.void)
    }
  })
  return Effect.repeat(Effect.delay(sweep, period), Schedule.forever)
}
