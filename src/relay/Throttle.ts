/**
 * How fast bytes may pass, all visitors together: a token bucket for each direction, shared fairly by all that wait.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

export interface Bucket {
  /**
   * Takes tokens for up to `wanted` bytes and returns how many bytes may pass, at least 1; waits for its turn.
   *
   * Cancel safe: an interrupted wait has taken nothing.
   */
  readonly take: (wanted: number) => Effect.Effect<number>
  /**
   * Waits for its turn and takes tokens for all bytes, e.g. of a datagram, which cannot be cut. Missing tokens are owed:
   * the next takers wait until they have come in.
   */
  readonly takeWhole: (bytes: number) => Effect.Effect<void>
  /** Returns the tokens of bytes that did not pass; below zero, takes tokens for bytes that passed without any. */
  readonly refund: (bytes: number) => void
}

export class Throttle extends Context.Tag("nodepass/Throttle")<
  Throttle,
  {
    /** Towards the other end of the tunnel; `undefined` without a limit: the data path then makes no call. */
    readonly tx: Bucket | undefined
    /** From the other end of the tunnel. */
    readonly rx: Bucket | undefined
  }
>() {}

export interface Options {
  /** Bytes a second, each way. Defaults to no limit. */
  readonly rate?: number | undefined
}

export const layer = ({ rate }: Options = {}): Layer.Layer<Throttle> =>
  Layer.scoped(
    Throttle,
    rate === undefined
      ? Effect.succeed({ tx: undefined, rx: undefined })
      : Effect.all({ tx: makeBucket(rate), rx: makeBucket(rate) })
  )

/**
 * A taker that finds tokens and an empty queue takes them at once. The others wait in the queue. One timer for all of
 * them hands out the tokens that have come in, a share to each in turn, so that a small wish waits one round at most.
 *
 * Not a `Semaphore`, which serves each waiter in full before the next one: small wishes would wait for all large ones.
 */
export const makeBucket = (rate: number): Effect.Effect<Bucket, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const tokens = makeTokens(rate, yield* Effect.clock)
    const queue = new Set<PendingGrant>()
    let ticking = false

    const serveQueue: Effect.Effect<void> = Effect.suspend(() => {
      if (tokens.left() <= 0 || queue.size === 0) return Effect.void
      serveRound(queue, tokens)
      return Effect.zipRight(Effect.yieldNow(), serveQueue)
    })
    const tick: Effect.Effect<void> = Effect.suspend(() => {
      if (queue.size === 0) {
        ticking = false
        return Effect.void
      }
      return Effect.sleep(Duration.sum(interval, tokens.untilPaid())).pipe(
        Effect.zipRight(Effect.sync(() => tokens.refill(queue.size > 0))),
        Effect.zipRight(serveQueue),
        Effect.zipRight(tick)
      )
    })
    const wait = (wanted: number, whole: boolean): Effect.Effect<number> =>
      Effect.async<number>((resume) => {
        const pending: PendingGrant = { wanted, whole, grant: (bytes) => resume(Effect.succeed(bytes)) }
        queue.add(pending)
        return Effect.sync(() => queue.delete(pending))
      })
    const take = (wanted: number, whole: boolean): Effect.Effect<number> =>
      Effect.suspend(() => {
        if (ticking) return wait(wanted, whole)
        tokens.refill(queue.size > 0)
        if (tokens.left() <= 0) {
          ticking = true
          return Effect.zipRight(Effect.forkIn(tick, scope), wait(wanted, whole))
        }
        const passing = whole ? wanted : Math.min(wanted, Math.max(minShareBytes, Math.floor(tokens.left())))
        tokens.add(-passing)
        return Effect.succeed(passing)
      })

    return {
      take: (wanted) => take(wanted, false),
      takeWhole: (bytes) => Effect.asVoid(take(bytes, true)),
      refund: tokens.add
    }
  })

// internal

/** What may pass at once after a pause. */
const burst = Duration.millis(50)
/** Between two rounds of the queue. */
const interval = Duration.millis(10)
const minShareBytes = 512
const maxShareBytes = 64 * 1024

interface PendingGrant {
  readonly wanted: number
  /** Grants all that is wanted, in place of a share. */
  readonly whole: boolean
  readonly grant: (bytes: number) => void
}

/** One token for each byte; fewer than none are owed. */
const makeTokens = (rate: number, clock: Clock.Clock) => {
  const burstBytes = rate * (Duration.toMillis(burst) / 1000)
  let left = burstBytes
  let refilledAt = clock.unsafeCurrentTimeMillis()
  return {
    left: () => left,
    add: (bytes: number) => {
      left += bytes
    },
    /** Adds the tokens that have come in since the last refill. */
    refill: (takersWait: boolean) => {
      const now = clock.unsafeCurrentTimeMillis()
      // While takers wait there is room for twice as much: this process may have been busy when the timer was due.
      const limit = takersWait ? 2 * burstBytes : burstBytes
      // A clock that was set back adds nothing.
      left = Math.min(limit, left + (Math.max(0, now - refilledAt) * rate) / 1000)
      refilledAt = now
    },
    /** The time until no tokens are owed. */
    untilPaid: () => Duration.millis((Math.max(0, -left) / rate) * 1000)
  }
}

/** Grants a share to each taker that waits now. A taker that needs more waits again. */
const serveRound = (queue: Set<PendingGrant>, tokens: ReturnType<typeof makeTokens>) => {
  const share = Math.max(minShareBytes, Math.min(maxShareBytes, Math.ceil(tokens.left() / queue.size)))
  for (const pending of Array.from(queue)) {
    if (tokens.left() <= 0) return
    queue.delete(pending)
    const passing = pending.whole ? pending.wanted : Math.min(pending.wanted, share)
    tokens.add(-passing)
    pending.grant(passing)
  }
}
