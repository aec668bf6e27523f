/**
 * The tunnel keys in force: one, and while that takes the place of another both, so that no side is shut out in between.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Crypto } from "../transport/Crypto.js"
import { Deadlines } from "../core/Deadlines.js"
import { EventBus } from "../core/EventBus.js"
import * as Key from "../wire/Key.js"
import { Settings } from "../transport/Settings.js"

/** Keys in force at once, at most. */
export const limit = 4

/** As many keys as can be are in force; the oldest has to run out first. */
export class TooManyKeys extends Schema.TaggedError<TooManyKeys>()("TooManyKeys", {}) {
  override get message(): string {
    return `${limit} keys are in force, which is the most: one has to run out before the next takes its place`
  }
}

export interface ReplaceOptions {
  /** How long the key of before is honoured; none at all for `0`. Defaults to `NP_KEY_GRACE`. */
  readonly grace?: Duration.DurationInput | undefined
}

/** `None` is the key that everybody knows. Takes some 60 ms, and does nothing when it is the key already. */
export type Replace = (
  key: Option.Option<Redacted.Redacted>,
  options?: ReplaceOptions
) => Effect.Effect<void, TooManyKeys>

/** The newest first. */
export type InForce = readonly [Key.Stretched, ...ReadonlyArray<Key.Stretched>]

export interface Keyring {
  readonly inForce: Effect.Effect<InForce>
  /** Those in force now, and then after each change. */
  readonly changes: Stream.Stream<InForce>
  readonly replace: Replace
}

export const make = (
  initial: Option.Option<Redacted.Redacted>
): Effect.Effect<Keyring, never, Crypto | Deadlines | EventBus | Settings> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const events = yield* EventBus
    const crypto = yield* Effect.context<Crypto>()
    const { keyGrace } = yield* Settings
    const ring = yield* SubscriptionRef.make<InForce>([yield* Key.stretch(initial)])
    const replacing = yield* Effect.makeSemaphore(1)
    const expiries = new Map<Key.Stretched, () => void>()

    const retire = (key: Key.Stretched) =>
      SubscriptionRef.update(ring, ([newest, ...others]): InForce => {
        expiries.delete(key)
        return [newest, ...others.filter((other) => other !== key)]
      })
    const expire = (key: Key.Stretched, grace: Duration.Duration) => {
      if (Duration.toMillis(grace) <= 0) return retire(key)
      const over = Effect.zipRight(retire(key), Effect.logInfo("a tunnel key of before is honoured no longer"))
      return Effect.sync(() => void expiries.set(key, deadlines.after(grace, over)))
    }
    /** Puts the key first, and says which was. */
    const put = (key: Key.Stretched) =>
      SubscriptionRef.modifyEffect(ring, (keys) => {
        const [newest] = keys
        if (Key.same(newest, key)) return Effect.succeed([Option.none<Key.Stretched>(), keys])
        const before = keys.find((other) => Key.same(other, key))
        if (before === undefined && keys.length >= limit) return new TooManyKeys()
        if (before !== undefined) {
          expiries.get(before)?.()
          expiries.delete(before)
        }
        const others = keys.filter((other) => other !== before)
        return Effect.succeed([Option.some(newest), [before ?? key, ...others] satisfies InForce])
      })

    return {
      inForce: SubscriptionRef.get(ring),
      changes: ring.changes,
      replace: (key, options) =>
        Effect.gen(function* () {
          const grace = Duration.decode(options?.grace ?? keyGrace)
          const before = yield* put(yield* Effect.provide(Key.stretch(key), crypto))
          if (Option.isNone(before)) return
          yield* expire(before.value, grace)
          yield* events.publish(() => ({ _tag: "Rotated", keys: "tunnel" }))
          const honoured =
            Duration.toMillis(grace) > 0 ? `honoured for ${Duration.format(grace)}` : "honoured no longer"
          yield* Effect.logInfo(`the tunnel key was replaced; the one of before is ${honoured}`)
        }).pipe(replacing.withPermits(1), Effect.uninterruptible)
    }
  })
