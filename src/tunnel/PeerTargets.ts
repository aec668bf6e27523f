/**
 * What the two sides of a session know of the targets. The side that dials them tells the other, where visitors connect,
 * whether it reaches any. Source: docs/protocol.md §Signals.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Targets } from "../relay/Targets.js"
import { SignalBus } from "../signal/SignalBus.js"
import * as Transport from "../transport/Transport.js"
import * as Signal from "../wire/Signal.js"

/**
 * On the side of the targets: sends their state to the other side whenever it changes, until the scope closes. The effect that
 * is returned sends it again, to a process that does not know it.
 */
export const report: Effect.Effect<Effect.Effect<void>, never, Scope.Scope | SignalBus | Targets> = Effect.gen(
  function* () {
    const bus = yield* SignalBus
    const targets = yield* Targets
    const send = (signal: Signal.Targets) => Effect.ignore(bus.send(signal))
    const tell = Effect.flatMap(Effect.all([targets.trouble, Clock.currentTimeMillis]), ([trouble, now]) =>
      Option.match(trouble, {
        onNone: () => send(new Signal.Targets({ why: Option.none(), millis: 0 })),
        onSome: ({ failures, until }) => {
          // Without the targets' addresses: whoever runs the other side need not know them.
          const reasons = new Set(failures.map(({ reason }) => reason))
          const why = Option.some(Array.from(reasons).slice(0, maxReasons).join())
          return send(new Signal.Targets({ why, millis: Math.max(0, Math.ceil(until - now)) }))
        }
      })
    )
    yield* targets.watch(tell)
    if (Option.isSome(yield* targets.trouble)) yield* tell
    return tell
  }
)

/** On the side of the visitors. */
export interface PeerTargets {
  readonly onTargets: (signal: Signal.Targets) => Effect.Effect<void>
  /** Why the other side reaches no target; `None` when it does, as far as is known. */
  readonly trouble: Effect.Effect<Option.Option<string>>
  /** The other side's process has ended, and the next one says anew what it knows. */
  readonly forget: () => void
}

export const make = (onChange: () => void): PeerTargets => {
  let known: { readonly why: string; readonly until: number } | undefined
  return {
    onTargets: ({ millis, why }) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const before = known?.why
        known = Option.match(why, { onNone: () => undefined, onSome: (why) => ({ why, until: now + millis }) })
        if (known?.why !== before) onChange()
      }),
    trouble: Effect.map(Clock.currentTimeMillis, (now) =>
      known === undefined || known.until < now
        ? Option.none()
        : Option.some(known.why.split(",").map(Transport.sentenceOf).join(", "))
    ),
    forget: () => {
      if (known === undefined) return
      known = undefined
      onChange()
    }
  }
}

// internal

const maxReasons = 8
