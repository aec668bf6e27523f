/**
 * What could not be served. Each refusal counts; the first of a kind is logged at once, and of those that follow one a
 * minute, with how many went unsaid. A flood of strangers is then one line a minute, and nothing is lost in silence.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { EventBus } from "./EventBus.js"
import type { refusalKinds } from "./TunnelEvent.js"

export type Kind = (typeof refusalKinds)[number]

/** Refusals so far, by kind. */
export type Counts = Readonly<Record<Kind, number>>

export class Refusals extends Context.Tag("nodepass/Refusals")<
  Refusals,
  {
    /** Counts a refusal, whose error is the log line; errors of one tag and reason are alike. */
    readonly count: (kind: Kind, error: RefusalError, options?: Options) => Effect.Effect<void>
    readonly counts: Effect.Effect<Counts>
  }
>() {}

export interface Options {
  /** What stands beside the log line. */
  readonly details?: Readonly<Record<string, string>> | undefined
  /** How many were refused. Defaults to `1`. */
  readonly times?: number | undefined
}

export interface RefusalError {
  readonly _tag: string
  readonly message: string
  readonly reason?: unknown
}

export const make: Effect.Effect<Refusals["Type"], never, EventBus> = Effect.map(EventBus, (events) => {
  const counts: Record<Kind, number> = {
    dial: 0,
    handshake: 0,
    signal: 0,
    slot: 0,
    pool: 0,
    target: 0,
    launch: 0,
    header: 0,
    datagram: 0
  }
  const said = new Map<string, { at: number; unsaid: number }>()
  return Refusals.of({
    count: (kind, error, options) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const times = options?.times ?? 1
        counts[kind] += times
        const told = events.publish(() => ({ _tag: "Refused", kind, why: error.message, times }))
        const alike = `${kind} ${error._tag} ${String(error.reason)}`
        const last = said.get(alike)
        if (last !== undefined && now - last.at < 60_000) {
          last.unsaid += times
          return Effect.logDebug(error.message).pipe(
            Effect.annotateLogs({ refused: kind, ...options?.details }),
            Effect.zipRight(told)
          )
        }
        said.set(alike, { at: now, unsaid: times - 1 })
        const unsaid = last !== undefined && last.unsaid > 0 ? { more: String(last.unsaid) } : {}
        return Effect.logWarning(error.message).pipe(
          Effect.annotateLogs({ refused: kind, ...options?.details, ...unsaid }),
          Effect.zipRight(told)
        )
      }),
    counts: Effect.sync(() => ({ ...counts }))
  })
})

export const layer: Layer.Layer<Refusals, never, EventBus> = Layer.effect(Refusals, make)
