/**
 * The way of the bytes: what one connection says goes to the other, both ways, until both have ended.
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
import { Meter } from "./Meter.js"
import { type Bucket, Throttle } from "./Throttle.js"
import type { Connection, TransportError } from "../transport/Transport.js"

/** Neither side said anything for that long. Both were reset. */
export class RelayIdle extends Schema.TaggedError<RelayIdle>()("RelayIdle", {
  limit: Schema.DurationFromSelf
}) {
  override get message(): string {
    return `silent in both directions for ${Duration.format(this.limit)}`
  }
}

export class Relay extends Context.Tag("nodepass/Relay")<
  Relay,
  {
    /**
     * Copies both ways until both sides have half-closed, an end being passed on as an end.
     *
     * `near` is the visitor or the target, `far` the other end of the tunnel. Fails with the first error after
     * resetting both, so that a reset on one side is a reset on the other.
     */
    readonly exchange: (near: Connection, far: Connection) => Effect.Effect<void, TransportError | RelayIdle>
    /** Exchanges under way, and begun so far. */
    readonly count: Effect.Effect<{ readonly live: number; readonly total: number }>
    /** Completes once no exchange is under way. */
    readonly drained: Effect.Effect<void>
    /** Who moves the bytes, and where that is for want of a faster way, why: for the log. */
    readonly way: string
  }
>() {}

export interface Options {
  /** An exchange silent in both directions this long is reset. Defaults to no limit. */
  readonly idle?: Duration.Duration | undefined
  /** The congestion control of the connections to the other end of the tunnel, by its name. Defaults to `auto`. */
  readonly congestion?: string | undefined
  /** Why there is no faster way. */
  readonly why?: string | undefined
}

interface Exchange {
  readonly near: Connection
  readonly far: Connection
  /** Since the last look at it. */
  active: boolean
  unsent: number
  quietMillis: number
  idle: boolean
  readonly began: number
  readonly bytes: { rx: number; tx: number }
}

/** Moves bytes through this process, chunk by chunk, over any `Connection`. */
export const layer = (options?: Options): Layer.Layer<Relay, never, Meter | Throttle> =>
  Layer.scoped(
    Relay,
    Effect.gen(function* () {
      const { traffic } = yield* Meter
      const throttle = yield* Throttle
      const limit = options?.idle ?? Duration.infinity
      if (options?.congestion !== undefined && options.congestion !== "auto") {
        yield* Effect.logWarning(`cc: ${options.congestion} needs the kernel's relay; connections keep the system's`)
      }
      const exchanges = new Set<Exchange>()
      let total = 0
      const drained = yield* Effect.makeLatch(true)

      // One timer for all exchanges: a chunk only sets a flag.
      if (Duration.isFinite(limit)) {
        const period = Duration.min(Duration.times(limit, 0.25), Duration.seconds(1))
        const sweep = Effect.suspend(() => {
          const quiet = Array.from(exchanges).filter((exchange) => {
            const unsent = exchange.near.unsent() + exchange.far.unsent()
            // A reader that is slow takes bytes all the time, though no write ends.
            exchange.active ||= unsent !== exchange.unsent
            exchange.unsent = unsent
            exchange.quietMillis = exchange.active ? 0 : exchange.quietMillis + Duration.toMillis(period)
            exchange.active = false
            return exchange.quietMillis >= Duration.toMillis(limit)
          })
          return Effect.forEach(
            quiet,
            (exchange) => {
              exchange.idle = true
              return Effect.zipRight(exchange.near.reset, exchange.far.reset)
            },
            { discard: true }
          )
        })
        yield* Effect.forkScoped(Effect.repeat(Effect.delay(sweep, period), Schedule.forever))
      }

      const pump = (
        exchange: Exchange,
        from: Connection,
        to: Connection,
        direction: "rx" | "tx"
      ): Effect.Effect<void, TransportError> => {
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
          exchange.bytes[direction] += chunk.value.length
          return bucket === undefined ? to.write(chunk.value) : writeSlowly(bucket, to, chunk.value, exchange)
        }
        const step = Effect.flatMap(from.read, forward)
        return Effect.onError(
          Effect.whileLoop({ while: () => open, body: () => step, step: constVoid }),
          // The other direction may wait in a read or a write; a reset ends its wait.
          () => Effect.zipRight(exchange.near.reset, exchange.far.reset)
        )
      }

      const leave = (exchange: Exchange) =>
        Effect.suspend(() => {
          exchanges.delete(exchange)
          if (exchanges.size === 0) drained.unsafeOpen()
          return Effect.whenLogLevel(report(exchange), "Debug")
        })

      return Relay.of({
        exchange: (near, far) =>
          Effect.flatMap(Clock.currentTimeMillis, (began) => {
            const bytes = { rx: 0, tx: 0 }
            const exchange: Exchange = { near, far, active: true, unsent: 0, quietMillis: 0, idle: false, began, bytes }
            exchanges.add(exchange)
            total++
            drained.unsafeClose()
            return Effect.fork(pump(exchange, far, near, "rx")).pipe(
              Effect.flatMap((back) =>
                Effect.flatMap(Effect.exit(pump(exchange, near, far, "tx")), (there) =>
                  Effect.flatMap(Fiber.await(back), (back) => Exit.zipRight(there, back))
                )
              ),
              Effect.mapError((error) => (exchange.idle ? new RelayIdle({ limit }) : error)),
              Effect.ensuring(leave(exchange))
            )
          }),
        count: Effect.sync(() => ({ live: exchanges.size, total })),
        drained: drained.await,
        way: options?.why === undefined ? "portable" : `portable, since ${options.why}`
      })
    })
  )

/** What an exchange has carried, for the log. */
export interface Carried {
  readonly near: Connection
  readonly far: Connection
  /** Milliseconds of the Clock. */
  readonly began: number
  readonly bytes: { readonly rx: number; readonly tx: number }
  /** Where the system tells. */
  readonly path?: Path | undefined
}

/** How the connection to the other end of the tunnel has fared. */
export interface Path {
  /** Smoothed round trip. */
  readonly rttMillis: number
  /** Segments with data that were sent, and of these how many were sent again. */
  readonly segments: number
  readonly retransmitted: number
}

/** Says at debug that an exchange is over, and what it has carried. */
export const report = ({ began, bytes, far, near, path }: Carried): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.logDebug("relay over").pipe(
      Effect.annotateLogs({
        near: String(near.remote),
        far: String(far.remote),
        rx: bytes.rx,
        tx: bytes.tx,
        seconds: (now - began) / 1000,
        ...(path && { rtt: path.rttMillis, retransmitted: path.retransmitted })
      })
    )
  )

// internal

/** In pieces, as many bytes at a time as the limit lets pass. */
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
