/**
 * The service that copies bytes between two connections, both ways, until both have ended. `PortableRelay` does it in this
 * process, `node/kernel/KernelRelay` in the kernel.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import type { StreamHandle } from "../stream/StreamHandle.js"
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

/**
 * Nothing had come from `far`, and the exchange was undone: `far` was reset. With `keep`, `near` is open and has back what
 * came from it; without, it was reset as well.
 */
export class FarSilent extends withoutStack(Schema.TaggedError<FarSilent>()("FarSilent", { far: Address })) {
  override get message(): string {
    return `the pool connection to ${String(this.far)} carried nothing`
  }
}

/** What an exchange has carried so far. */
export interface Progress {
  /** Bytes or an end were passed on to `far`. */
  readonly sent: boolean
  /** Bytes or an end have come from `far`. */
  readonly received: boolean
}

export interface ExchangeOptions {
  /**
   * Whether to keep what comes from `near`, so that `undo` can give it back: until something comes from `far`, until it is
   * more than 16 KiB, or until `commit`. Defaults to `false`.
   */
  readonly keep?: boolean | undefined
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
    readonly exchange: (
      near: Connection,
      far: Connection,
      options?: ExchangeOptions
    ) => Effect.Effect<void, TransportError | RelayIdle | FarSilent>
    /**
     * As `exchange`, without a fiber: joins a socket with a stream. Returns `false`, and has begun nothing, when that is not
     * possible. Both are over when `attendant` is told the end, but `near` is the caller's to close.
     */
    readonly exchangeNow?: ((near: Connection, attendant: Attendant) => boolean) | undefined
    /** Resets every exchange without a fiber. When the layer closes it does so too. */
    readonly abortNow?: Effect.Effect<void> | undefined
    /** The progress of the exchange with this far connection; `undefined` when there is none. */
    readonly progress: (far: Connection) => Progress | undefined
    /**
     * Ends the exchange with this far connection as `FarSilent`. Returns whether it did: not when something has come from
     * `far`, and not when what was to be kept is not there any more.
     */
    readonly undo: (far: Connection) => Effect.Effect<boolean>
    /** From now on the exchange with this far connection keeps nothing. */
    readonly commit: (far: Connection) => void
    /** Exchanges now (`live`), and started so far. */
    readonly count: Effect.Effect<{ readonly live: number; readonly total: number }>
    /** Completes when no exchange is running. */
    readonly drained: Effect.Effect<void>
    /** For the log: `kernel`, or `portable` and why there is nothing faster. */
    readonly description: string
  }
>() {}

/** Who wants an exchange without a fiber. */
export interface Attendant {
  /** The stream to join; `undefined` when there is none. */
  open(): StreamHandle | undefined
  /** Called once, with what `exchange` completes with; maybe before `exchangeNow` returns. */
  ended(outcome: Outcome): void
}

/** What an exchange completes with; what it logs is part of it. `undefined`: it was carried out, and there is nothing to log. */
export type Outcome = Effect.Effect<void, TransportError | RelayIdle | FarSilent> | undefined

export interface Options {
  /** An exchange that is silent in both directions for this long is reset. Defaults to no limit. */
  readonly idle?: Duration.Duration | undefined
  /** The congestion control of connections to the other end of the tunnel, by its name. Defaults to `auto`. */
  readonly congestion?: string | undefined
  /** Why a faster relay is not used. */
  readonly fallbackReason?: string | undefined
}

/** An exchange that has ended, for the log. */
export interface Summary {
  readonly near: Pick<Connection, "remote">
  readonly far: Pick<Connection, "remote">
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

/** Logs the outcome of an exchange that no fiber waited for. `idle`: the name of the end that is told of an idle exchange. */
export const logOutcome = (
  outcome: NonNullable<Outcome>,
  visitor: string,
  idle: "peer" | "target"
): Effect.Effect<void> =>
  Effect.catchAll(outcome, (error) => {
    if (!(error instanceof RelayIdle)) return logReset(error, { visitor })
    return logReset(error, { visitor, [idle]: String(idle === "peer" ? error.far : error.near) })
  })

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
