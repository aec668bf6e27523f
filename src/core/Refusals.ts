/**
 * Counts and logs what could not be served. The first refusal of a kind is logged as a warning, and then one a minute, with
 * the number of those in between. A flood of unauthenticated peers is one line a minute, and no refusal goes uncounted.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import { EventBus } from "./EventBus.js"
import type { refusalKinds } from "./TunnelEvent.js"

export type Kind = (typeof refusalKinds)[number]

/** Refusals so far, by kind. */
export type Counts = Readonly<Record<Kind, number>>

export class Refusals extends Context.Tag("nodepass/Refusals")<
  Refusals,
  {
    /** Counts a refusal and logs its error. Errors with the same tag and reason are of one kind. */
    readonly count: (kind: Kind, error: RefusalError, options?: Options) => Effect.Effect<void>
    readonly counts: Effect.Effect<Counts>
  }
>() {}

export interface Options {
  /** Annotations of the log line. */
  readonly details?: Readonly<Record<string, string>> | undefined
  /** How many were refused. Defaults to `1`. */
  readonly times?: number | undefined
  /** Of the line that is logged. `info` is for a refusal that may be part of what was asked for. Defaults to `warning`. */
  readonly level?: "warning" | "info" | undefined
}

export interface RefusalError {
  readonly _tag: string
  readonly message: string
  readonly reason?: unknown
}

/** Time between two lines of one kind and level. */
const lineMillis = 60_000

export const make: Effect.Effect<Refusals["Type"], never, EventBus> = Effect.map(EventBus, (events) => {
  const counts: Record<Kind, number> = {
    dial: 0,
    dropped: 0,
    handshake: 0,
    signal: 0,
    slot: 0,
    pool: 0,
    target: 0,
    launch: 0,
    header: 0,
    evicted: 0,
    datagram: 0
  }
  /** The last line of each kind and level, and how many refusals were logged at debug since. */
  const logged = new Map<string, { at: number; suppressed: number }>()
  return Refusals.of({
    count: (kind, error, options) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const { level = "warning", times = 1 } = options ?? {}
        counts[kind] += times
        const published = events.publish(() => ({ _tag: "Refused", kind, why: error.message, times }))
        const same = `${level} ${kind} ${error._tag} ${String(error.reason)}`
        const last = logged.get(same)
        if (last !== undefined && now - last.at < lineMillis) {
          last.suppressed += times
          const line = Effect.annotateLogs(Effect.logDebug(error.message), { refused: kind, ...options?.details })
          return Effect.zipRight(ifDebug(line), published)
        }
        logged.set(same, { at: now, suppressed: times - 1 })
        const suppressed = last !== undefined && last.suppressed > 0 ? { suppressed: String(last.suppressed) } : {}
        return (level === "info" ? Effect.logInfo : Effect.logWarning)(error.message).pipe(
          Effect.annotateLogs({ refused: kind, ...options?.details, ...suppressed }),
          Effect.zipRight(published)
        )
      }),
    counts: Effect.sync(() => ({ ...counts }))
  })
})

export const layer: Layer.Layer<Refusals, never, EventBus> = Layer.effect(Refusals, make)

// internal

/** Annotations cost 15 µs, also of a line that is not logged. */
const ifDebug = (line: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.flatMap(FiberRef.get(FiberRef.currentMinimumLogLevel), (least) =>
    LogLevel.greaterThan(least, LogLevel.Debug) ? Effect.void : line
  )
