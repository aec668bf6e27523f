/**
 * How fast bytes may pass, all visitors together: a token bucket each way, and turns that are fair to everybody.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

export interface Bucket {
  /**
   * How many of the wanted bytes may pass now: at least one, at most `wanted`; waits for its turn.
   *
   * Cancel safe: an interrupted wait has taken nothing.
   */
  readonly take: (wanted: number) => Effect.Effect<number>
  /** Waits for its turn and lets all of them pass, e.g. a datagram, which cannot be cut; what was not there is owed. */
  readonly takeWhole: (bytes: number) => Effect.Effect<void>
  /** Settles what was taken and did not pass, or below zero what passed and was not taken. */
  readonly giveBack: (bytes: number) => void
}

export class Throttle extends Context.Tag("nodepass/Throttle")<
  Throttle,
  {
    /** Towards the other end of the tunnel; `undefined` where there is no limit, so that the data path need not ask. */
    readonly tx: Bucket | undefined
    /** And back. */
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

interface Waiter {
  readonly wanted: number
  readonly whole: boolean
  readonly grant: (bytes: number) => void
}

/**
 * Who finds tokens and nobody waiting takes them at once. The others stand in a row; one timer for all of them hands out
 * what has come in since, a share to each in turn, so that who wants little waits no longer than a round.
 */
export const makeBucket = (rate: number): Effect.Effect<Bucket, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const clock = yield* Effect.clock
    const most = rate * (Duration.toMillis(burst) / 1000)
    const row = new Set<Waiter>()
    let tokens = most
    let at = clock.unsafeCurrentTimeMillis()
    let ticking = false

    const refill = () => {
      const now = clock.unsafeCurrentTimeMillis()
      // A clock that is set back adds nothing, and is not waited for.
      // Somebody who waited may have what came in while this process was busy.
      const room = row.size > 0 ? 2 * most : most
      tokens = Math.min(room, tokens + (Math.max(0, now - at) * rate) / 1000)
      at = now
    }

    /** A share to each who stands in the row now; who wants more stands behind then. */
    const serveRound = () => {
      const share = Math.max(least, Math.min(largest, Math.ceil(tokens / row.size)))
      for (const waiter of Array.from(row)) {
        if (tokens <= 0) return
        row.delete(waiter)
        const passing = waiter.whole ? waiter.wanted : Math.min(waiter.wanted, share)
        tokens -= passing
        waiter.grant(passing)
      }
    }
    /** Rounds until nothing is left, or nobody stands there. */
    const serveRow: Effect.Effect<void> = Effect.suspend(() => {
      if (tokens <= 0 || row.size === 0) return Effect.void
      serveRound()
      return Effect.zipRight(Effect.yieldNow(), serveRow)
    })

    const tick: Effect.Effect<void> = Effect.suspend(() => {
      if (row.size === 0) {
        ticking = false
        return Effect.void
      }
      const owed = Duration.millis((Math.max(0, -tokens) / rate) * 1000)
      return Effect.sleep(Duration.sum(interval, owed)).pipe(
        Effect.zipRight(Effect.sync(refill)),
        Effect.zipRight(serveRow),
        Effect.zipRight(tick)
      )
    })

    const wait = (wanted: number, whole: boolean): Effect.Effect<number> =>
      Effect.async<number>((resume) => {
        const waiter: Waiter = { wanted, whole, grant: (bytes) => resume(Effect.succeed(bytes)) }
        row.add(waiter)
        return Effect.sync(() => row.delete(waiter))
      })
    const queue = (wanted: number, whole: boolean): Effect.Effect<number> =>
      Effect.suspend(() => {
        if (ticking) return wait(wanted, whole)
        ticking = true
        return Effect.zipRight(Effect.forkIn(tick, scope), wait(wanted, whole))
      })

    const take = (wanted: number, whole: boolean): Effect.Effect<number> =>
      Effect.suspend(() => {
        if (ticking) return queue(wanted, whole)
        refill()
        if (tokens <= 0) return queue(wanted, whole)
        const passing = whole ? wanted : Math.min(wanted, Math.max(least, Math.floor(tokens)))
        tokens -= passing
        return Effect.succeed(passing)
      })

    return {
      take: (wanted) => take(wanted, false),
      takeWhole: (bytes) => Effect.asVoid(take(bytes, true)),
      giveBack: (bytes) => {
        tokens += bytes
      }
    }
  })

// internal

/** What may pass at once after silence. */
const burst = Duration.millis(50)
/** Between two looks at the row. */
const interval = Duration.millis(10)
/** Bytes in a share. */
const [least, largest] = [512, 64 * 1024]
