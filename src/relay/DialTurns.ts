/**
 * How many launches may be dialled at a time. The others wait for their turn, in order, and not for ever.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Deadlines } from "../core/Deadlines.js"
import { withoutStack } from "../core/WithoutStack.js"

/** A launch has waited too long for its turn: the targets do not answer those before it. */
export class DialsFull extends withoutStack(Schema.TaggedError<DialsFull>()("DialsFull", { limit: Schema.Number })) {
  override get message(): string {
    return `${this.limit} visitors wait for a target to answer, and this one has waited too long for its turn`
  }
}

export interface DialTurns {
  /** Takes a turn, which `release` gives back; waits while there is none. Whoever is interrupted has none. */
  readonly take: Effect.Effect<void, DialsFull>
  readonly release: () => void
}

export interface Options {
  readonly limit: number
  /** How long a launch waits. */
  readonly timeout: Duration.Duration
}

export const make = ({ limit, timeout }: Options, deadlines: Deadlines["Type"]): DialTurns => {
  let taken = 0
  const waiting = new Set<() => void>()
  const release = () => {
    taken--
    for (const begin of waiting) return begin()
  }
  const wait = Effect.suspend(() => {
    let isTaken = false
    const turn = Effect.async<void, DialsFull>((resume) => {
      const leave = () => {
        waiting.delete(begin)
        cancel()
      }
      const begin = () => {
        leave()
        taken++
        isTaken = true
        resume(Effect.void)
      }
      const late = Effect.sync(() => {
        waiting.delete(begin)
        resume(new DialsFull({ limit }))
      })
      const cancel = deadlines.after(timeout, late)
      waiting.add(begin)
      return Effect.sync(leave)
    })
    // The interruption may come after the turn.
    return Effect.onInterrupt(turn, () => Effect.sync(() => isTaken && release()))
  })
  return {
    take: Effect.suspend(() => {
      if (taken >= limit) return wait
      taken++
      return Effect.void
    }),
    release
  }
}
