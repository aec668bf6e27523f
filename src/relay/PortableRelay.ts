/**
 * The relay through this process: copies bytes chunk by chunk, over any `Connection`, with a fiber for each direction.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { type Connection, readable, type TransportError } from "../transport/Transport.js"
import * as Kept from "./Kept.js"
import { Meter } from "./Meter.js"
import { FarSilent, idleError, logSummary, type Options, Relay, type RelayIdle, type Summary } from "./Relay.js"
import { type Bucket, Throttle } from "./Throttle.js"

export const layer = (options?: Options): Layer.Layer<Relay, never, Meter | Throttle> =>
  Layer.scoped(
    Relay,
    Effect.gen(function* () {
      const meter = yield* Meter
      const { traffic } = meter
      const pump = makePump(meter, yield* Throttle)
      const limit = options?.idle ?? Duration.infinity
      /** By the far connection. */
      const exchanges = new Map<Connection, Exchange>()
      let total = 0
      const drained = yield* Effect.makeLatch(true)

      if (options?.congestion !== undefined && options.congestion !== "auto") {
        const { congestion } = options
        yield* Effect.logWarning(`cc=${congestion} needs the kernel relay; connections keep the system's default`)
      }
      if (Duration.isFinite(limit)) yield* Effect.forkScoped(resetIdle(exchanges, limit))

      /** Sends in this fiber, or in one of its own where that may be undone: it costs 20 µs. */
      const send = (exchange: Exchange, receiving: Exchange["pumps"][number]) =>
        exchange.kept === undefined
          ? Effect.exit(pump(exchange, "tx"))
          : Effect.flatMap(Effect.fork(pump(exchange, "tx")), (sending) => {
              exchange.pumps = [receiving, sending]
              return Fiber.await(sending)
            })
      /** Resets `far`, and gives back to `near` what was kept. */
      const afterUndo = ({ bytes, far, kept, near }: Exchange) =>
        Effect.suspend(() => {
          traffic.tcpTx -= bytes.tx
          const chunks = kept?.chunks()
          for (const chunk of chunks?.toReversed() ?? []) near.unread(chunk)
          const undone = new FarSilent({ far: far.remote })
          return Effect.zipRight(chunks === undefined ? near.reset : Effect.void, Effect.zipRight(far.reset, undone))
        })

      const leave = (exchange: Exchange) =>
        Effect.suspend(() => {
          exchanges.delete(exchange.far)
          if (exchanges.size === 0) drained.unsafeOpen()
          return Effect.whenLogLevel(logSummary(exchange), "Debug")
        })

      return Relay.of({
        exchange: (near, far, { keep = false } = {}) =>
          Effect.flatMap(Clock.currentTimeMillis, (startedAt) => {
            const bytes = { rx: 0, tx: 0 }
            const activity = { active: true, unsent: 0, silentMillis: 0, idle: false }
            const ends = { farEnded: false, nearEnded: false }
            const kept = keep ? Kept.make() : undefined
            const exchange: Exchange = {
              near,
              far,
              startedAt,
              bytes,
              ...activity,
              ...ends,
              kept,
              undone: false,
              pumps: []
            }
            exchanges.set(far, exchange)
            total++
            drained.unsafeClose()
            return Effect.fork(pump(exchange, "rx")).pipe(
              Effect.flatMap((receiving) =>
                Effect.flatMap(send(exchange, receiving), (sent) =>
                  Effect.flatMap(Fiber.await(receiving), (received) => Exit.zipRight(sent, received))
                )
              ),
              Effect.catchAllCause((cause): Effect.Effect<never, FarSilent | RelayIdle | TransportError> => {
                if (exchange.undone) return afterUndo(exchange)
                return exchange.idle ? Effect.flatMap(idleError(exchange, limit), Effect.fail) : Effect.failCause(cause)
              }),
              Effect.ensuring(leave(exchange))
            )
          }),
        progress: (far) => {
          const exchange = exchanges.get(far)
          return exchange && { sent: exchange.bytes.tx > 0 || exchange.nearEnded, received: hasReceived(exchange) }
        },
        undo: (far) =>
          Effect.suspend(() => {
            const exchange = exchanges.get(far)
            return exchange === undefined ? Effect.succeed(false) : undo(exchange)
          }),
        commit: (far) => exchanges.get(far)?.kept?.drop(),
        count: Effect.sync(() => ({ live: exchanges.size, total })),
        drained: drained.await,
        description: options?.fallbackReason === undefined ? "portable" : `portable, since ${options.fallbackReason}`
      })
    })
  )

// internal

interface Exchange extends Summary {
  readonly near: Connection
  readonly far: Connection
  readonly bytes: { rx: number; tx: number }
  /** A byte was read or granted since the last check for silence. */
  active: boolean
  /** Bytes that the kernel had not taken at the last check. */
  unsent: number
  silentMillis: number
  /** It was reset because it was silent. */
  idle: boolean
  nearEnded: boolean
  farEnded: boolean
  readonly kept: Kept.Kept | undefined
  /** It ends as `FarSilent`. */
  undone: boolean
  /** The fibers that copy, where the exchange keeps what comes from `near`. */
  pumps: ReadonlyArray<Fiber.RuntimeFiber<void, TransportError>>
}

const hasReceived = ({ bytes, farEnded }: Exchange): boolean => bytes.rx > 0 || farEnded

const undo = (exchange: Exchange): Effect.Effect<boolean> => {
  const { far, kept, near, pumps, undone } = exchange
  if (undone || hasReceived(exchange) || kept?.isKeeping() === false) return Effect.succeed(false)
  exchange.undone = true
  const stopped = kept === undefined ? Effect.zipRight(near.reset, far.reset) : Fiber.interruptAll(pumps)
  return Effect.as(stopped, true)
}

/** Reads a chunk and keeps it: it is not lost when the pump is interrupted meanwhile. */
const readKept = (from: Connection, kept: Kept.Kept): Connection["read"] =>
  Effect.uninterruptibleMask((restore) =>
    Effect.zipRight(
      restore(readable(from)),
      Effect.tap(from.read, (chunk) => Effect.sync(() => Option.isSome(chunk) && kept.add(chunk.value)))
    )
  )

/** Copies one direction: `rx` from far to near, `tx` from near to far. */
const makePump =
  ({ traffic }: Meter["Type"], throttle: Throttle["Type"]) =>
  (exchange: Exchange, direction: "rx" | "tx"): Effect.Effect<void, TransportError> => {
    const { bytes, far, kept, near } = exchange
    const [from, to] = direction === "rx" ? [far, near] : [near, far]
    const counter = direction === "rx" ? "tcpRx" : "tcpTx"
    const bucket = throttle[direction]
    let open = true
    const forward = (chunk: Option.Option<Uint8Array>): Effect.Effect<void, TransportError> => {
      exchange.active = true
      if (direction === "rx") kept?.drop()
      if (Option.isNone(chunk)) {
        open = false
        exchange[direction === "rx" ? "farEnded" : "nearEnded"] = true
        return to.end
      }
      traffic[counter] += chunk.value.length
      bytes[direction] += chunk.value.length
      return bucket === undefined ? to.write(chunk.value) : writeSlowly(bucket, to, chunk.value, exchange)
    }
    const read =
      direction === "rx" || kept === undefined
        ? from.read
        : Effect.suspend(() => (kept.isKeeping() ? readKept(from, kept) : from.read))
    const step = Effect.flatMap(read, forward)
    return Effect.onError(
      Effect.whileLoop({ while: () => open, body: () => step, step: constVoid }),
      // The other direction may wait in a read or a write; a reset ends its wait.
      () => (exchange.undone && kept !== undefined ? far.reset : Effect.zipRight(near.reset, far.reset))
    )
  }

/** Writes the chunk in the pieces that the rate lets pass. */
const writeSlowly = (
  bucket: Bucket,
  to: Connection,
  chunk: Uint8Array,
  exchange: Exchange
): Effect.Effect<void, TransportError> =>
  Effect.flatMap(bucket.take(chunk.length), (passing) => {
    exchange.active = true
    return passing >= chunk.length
      ? to.write(chunk)
      : Effect.zipRight(
          to.write(chunk.subarray(0, passing)),
          writeSlowly(bucket, to, chunk.subarray(passing), exchange)
        )
  })

/** Resets the exchanges that were silent for the limit. One timer for all: a chunk only sets a flag. */
const resetIdle = (exchanges: ReadonlyMap<Connection, Exchange>, limit: Duration.Duration): Effect.Effect<void> => {
  const limitMillis = Duration.toMillis(limit)
  const period = Duration.min(Duration.times(limit, 0.25), Duration.seconds(1))
  const isIdle = (exchange: Exchange) => {
    const unsent = exchange.near.unsent() + exchange.far.unsent()
    // A slow reader takes bytes all the time, though no write completes.
    const active = exchange.active || unsent !== exchange.unsent
    exchange.unsent = unsent
    exchange.silentMillis = active ? 0 : exchange.silentMillis + Duration.toMillis(period)
    exchange.active = false
    return exchange.silentMillis >= limitMillis
  }
  const reset = (exchange: Exchange) => {
    exchange.idle = true
    return Effect.zipRight(exchange.near.reset, exchange.far.reset)
  }
  const sweep = Effect.suspend(() =>
    Effect.forEach(Array.from(exchanges.values()).filter(isIdle), reset, { discard: true })
  )
  return Effect.asVoid(Effect.repeat(Effect.delay(sweep, period), Schedule.forever))
}
