/**
 * The counts of a session's pool connections: each is used once, also when another process continues the session.
 */
import { constVoid } from "effect/Function"
import * as Effect from "effect/Effect"

export interface JoinCounts {
  /** The lowest count that no connection had so far. */
  readonly next: () => number
  /** Client: takes the next count, from `least` on. */
  readonly draw: (least: number) => Effect.Effect<number>
  /** Server: a connection has this count. */
  readonly add: (count: number) => Effect.Effect<void>
  /** Skips the counts below this one. */
  readonly skipTo: (count: number) => void
  /** `draw` and `add` wait for counts from this one on until it is called again. Before the first call they never wait. */
  readonly reserve: (limit: number) => void
}

export interface Options {
  /** The lowest count of a new connection. Defaults to `0`. */
  readonly from?: number | undefined
  /** Called when `next` is another. */
  readonly onChange?: (() => void) | undefined
}

export const make = ({ from = 0, onChange = constVoid }: Options = {}): JoinCounts => {
  const raised = Effect.unsafeMakeLatch(false)
  let next = from
  let reserved = Infinity
  const skipTo = (count: number) => {
    if (count <= next) return
    next = count
    onChange()
  }
  const covered = (count: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (count < reserved) return Effect.void
      raised.unsafeClose()
      return Effect.zipRight(raised.await, covered(count))
    })
  return {
    next: () => next,
    draw: (least) =>
      Effect.suspend(() => {
        const count = Math.max(next, least)
        skipTo(count + 1)
        return Effect.as(covered(count), count)
      }),
    add: (count) =>
      Effect.suspend(() => {
        skipTo(count + 1)
        return covered(count)
      }),
    skipTo,
    reserve: (limit) => {
      reserved = limit
      raised.unsafeOpen()
    }
  }
}
