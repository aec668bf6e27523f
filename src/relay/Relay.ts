/**
 * Copies bytes between two connections, both ways, until both have ended.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import { Meter } from "./Meter.js"
import { type Bucket, Throttle } from "./Throttle.js"
import type { Connection, TransportError } from "../transport/Transport.js"
import { withoutStack } from "../core/WithoutStack.js"

/** No byte passed in either direction for `limit`. Both connections were reset. */
export class RelayIdle extends withoutStack(
  Schema.TaggedError<RelayIdle>()("RelayIdle", {
    limit: Schema.DurationFromSelf,
    /** How long the exchange lasted. */
    age: Schema.DurationFromSelf,
    near: Address,
    far: Address
  })
) {
  override get message(): string {
    return `silent in both directions for read=${Duration.format(this.limit)}, ${Duration.format(this.age)} after it began`
  }
}

export class Relay extends Context.Tag("nodepass/Relay")<
  Relay,
  {
    /**
     * Copies both ways until both sides have half-closed. A half-close is passed on as a half-close.
     *
     * `near` is the visitor or the target, `far` the connection to the other end of the tunnel. Fails with the first
     * error after it has reset both connections: a reset on one side is a reset on the other.
     */
    readonly exchange: (near: Connection, far: Connection) => Effect.Effect<void, TransportError | RelayIdle>
    /** Exchanges now (`live`), and started so far. */
    readonly count: Effect.Effect<{ readonly live: number; readonly total: number }>
    /** Completes when no exchange is running. */
    readonly drained: Effect.Effect<void>
    /** For the log: `kernel`, or `portable` and why there is nothing faster. */
    readonly description: string
  }
>() {}

export interface Options {
  /** An exchange that is silent in both directions for this long is reset. Defaults to no limit. */
  readonly idle?: Duration.Duration | undefined
  /** The congestion control of connections to the other end of the tunnel, by its name. Defaults to `auto`. */
  readonly congestion?: string | undefined
  /** Why a faster relay is not used. */
  readonly fallbackReason?: string | undefined
}

/** Copies bytes through this process, chunk by chunk, over any `Connection`. */
export const layer = (options?: Options): Layer.Layer<Relay, never, Meter | Throttle> =>
  Layer.scoped(
    Relay,
    Effect.gen(function* () {
      const pump = makePump(yield* Meter, yield* Throttle)
      const limit = options?.idle ?? Duration.infinity
      const exchanges = new Set<Exchange>()
      let total = 0
      const drained = yield* Effect.makeLatch(true)

      if (options?.congestion !== undefined && options.congestion !== "auto") {
        const { congestion } = options
        yield* Effect.logWarning(`cc=${congestion} needs the kernel relay; connections keep the system's default`)
      }
      if (Duration.isFinite(limit)) yield* Effect.forkScoped(resetIdle(exchanges, limit))

      const leave = (exchange: Exchange) =>
        Effect.suspend(() => {
          exchanges.delete(exchange)
          if (exchanges.size === 0) drained.unsafeOpen()
          return Effect.whenLogLevel(logSummary(exchange), "Debug")
        })

      return Relay.of({
        exchange: (near, far) =>
          Effect.flatMap(Clock.currentTimeMillis, (startedAt) => {
            const bytes = { rx: 0, tx: 0 }
            const activity = { active: true, unsent: 0, silentMillis: 0, idle: false }
            const exchange: Exchange = { near, far, startedAt, bytes, ...activity }
            exchanges.add(exchange)
            total++
            drained.unsafeClose()
            return Effect.fork(pump(exchange, "rx")).pipe(
              Effect.flatMap((receiving) =>
                Effect.flatMap(Effect.exit(pump(exchange, "tx")), (sent) =>
                  Effect.flatMap(Fiber.await(receiving), (received) => Exit.zipRight(sent, received))
                )
              ),
              Effect.catchAll((error): Effect.Effect<never, RelayIdle | TransportError> =>
                exchange.idle ? Effect.flatMap(idleError(exchange, limit), Effect.fail) : Effect.fail(error)
              ),
              Effect.ensuring(leave(exchange))
            )
          }),
        count: Effect.sync(() => ({ live: exchanges.size, total })),
        drained: drained.await,
        description: options?.fallbackReason === undefined ? "portable" : `portable, since ${options.fallbackReason}`
      })
    })
  )

/** An exchange that has ended, for the log. */
export interface Summary {
  readonly near: Connection
  readonly far: Connection
  /** Milliseconds of the clock. */
  readonly startedAt: number
  readonly bytes: { readonly rx: number; readonly tx: number }
  /** Where the system measures it. */
  readonly path?: Path | undefined
}

/** Measurements of the connection to the other end of the tunnel. */
export interface Path {
  /** The smoothed round trip. */
  readonly rttMillis: number
  /** Segments with data that were sent, and how many were retransmitted. */
  readonly segments: number
  readonly retransmitted: number
}

/** The error of an exchange that was silent for the limit. */
export const idleError = ({ far, near, startedAt }: Summary, limit: Duration.Duration): Effect.Effect<RelayIdle> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const age = Duration.seconds(Math.round((now - startedAt) / 1000))
    return new RelayIdle({ limit, age, near: near.remote, far: far.remote })
  })

/** Logs why an exchange was reset: at info when it was silent for the limit, otherwise at debug. */
export const logReset = (
  error: { readonly _tag: string; readonly message: string },
  details: Readonly<Record<string, string>>
): Effect.Effect<void> => {
  const text = `visitor reset: ${error.message}`
  return Effect.annotateLogs(error._tag === "RelayIdle" ? Effect.logInfo(text) : Effect.logDebug(text), details)
}

/** Logs at debug that an exchange has ended, and how much it carried. */
export const logSummary = ({ bytes, far, near, path, startedAt }: Summary): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.logDebug("exchange ended").pipe(
      Effect.annotateLogs({
        near: String(near.remote),
        far: String(far.remote),
        rx: bytes.rx,
        tx: bytes.tx,
        seconds: (now - startedAt) / 1000,
        ...(path && { rtt: path.rttMillis, retransmitted: path.retransmitted })
      })
    )
  )

// internal

interface Exchange extends Summary {
  readonly bytes: { rx: number; tx: number }
  /** A byte was read or granted since the last check for silence. */
  active: boolean
  /** Bytes that the kernel had not taken at the last check. */
  unsent: number
  silentMillis: number
  /** It was reset because it was silent. */
  idle: boolean
}

/** Copies one direction: `rx` from far to near, `tx` from near to far. */
const makePump =
  ({ traffic }: Meter["Type"], throttle: Throttle["Type"]) =>
  (exchange: Exchange, direction: "rx" | "tx"): Effect.Effect<void, TransportError> => {
    const { bytes, far, near } = exchange
    const [from, to] = direction === "rx" ? [far, near] : [near, far]
    const counter = direction === "rx" ? "tcpRx" : "tcpTx"
    const bucket = throttle[direction]
    let open = true
    const forward = (chunk: Option.Option<Uint8Array>): Effect.Effect<void, TransportError> => {
      exchange.active = true
      if (Option.isNone(chunk)) {
        open = false
        return to.end
      }
      traffic[counter] += chunk.value.length
      bytes[direction] += chunk.value.length
      return bucket === undefined ? to.write(chunk.value) : writeSlowly(bucket, to, chunk.value, exchange)
    }
    const step = Effect.flatMap(from.read, forward)
    return Effect.onError(
      Effect.whileLoop({ while: () => open, body: () => step, step: constVoid }),
      // The other direction may wait in a read or a write; a reset ends its wait.
      () => Effect.zipRight(near.reset, far.reset)
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
const resetIdle = (exchanges: ReadonlySet<Exchange>, limit: Duration.Duration): Effect.Effect<void> => {
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
  const sweep = Effect.suspend(() => Effect.forEach(Array.from(exchanges).filter(isIdle), reset, { discard: true }))
  return Effect.asVoid(Effect.repeat(Effect.delay(sweep, period), Schedule.forever))
}
