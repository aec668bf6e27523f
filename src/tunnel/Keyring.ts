/**
 * The tunnel keys in force: one, and for a grace period also those that it replaced, so that neither side is locked out
 * while both change.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Deadlines } from "../core/Deadlines.js"
import { EventBus } from "../core/EventBus.js"
import { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import * as KeyText from "./KeyText.js"

/** The most keys in force at a time. */
export const limit = 4

/** The most keys are in force. A key can be replaced again once the oldest has expired. */
export class TooManyKeys extends Schema.TaggedError<TooManyKeys>()("TooManyKeys", {}) {
  override get message(): string {
    return `${limit} tunnel keys are in force, which is the limit: wait until one expires`
  }
}

export interface ReplaceOptions {
  /** How long the previous key stays in force; `0` ends it now. Defaults to `NP_KEY_GRACE`. */
  readonly grace?: Duration.DurationInput | undefined
}

/** `None` is the key of a URL without one. Does nothing when the key is the current one. */
export type Replace = (
  key: Option.Option<Redacted.Redacted>,
  options?: ReplaceOptions
) => Effect.Effect<void, TooManyKeys>

/** The newest first. */
export type InForce = readonly [TunnelKey.TunnelKey, ...ReadonlyArray<TunnelKey.TunnelKey>]

export interface Keyring {
  readonly inForce: Effect.Effect<InForce>
  /** The keys in force now, and then after each change. */
  readonly changes: Stream.Stream<InForce>
  readonly replace: Replace
}

/** Logs that there is no key, or that others can guess it. */
export const warnOf = (key: Option.Option<Redacted.Redacted>): Effect.Effect<void> =>
  Option.match(key, {
    onNone: () => Effect.logWarning("no tunnel key: anyone who can reach the tunnel port can use this tunnel"),
    onSome: (key) =>
      Option.match(KeyText.warning(key), { onNone: () => Effect.void, onSome: (line) => Effect.logWarning(line) })
  })

export const make = (
  initial: Option.Option<Redacted.Redacted>
): Effect.Effect<Keyring, never, Crypto | Deadlines | EventBus | Settings> =>
  Effect.gen(function* () {
    const events = yield* EventBus
    const crypto = yield* Crypto
    const { keyGrace } = yield* Settings
    const ring = yield* SubscriptionRef.make<InForce>([yield* TunnelKey.make(initial)])
    const expiry = yield* makeExpiry(ring)
    const turn = yield* Effect.makeSemaphore(1)

    /** Puts the key first. Returns the key that it replaces, unless that is the same. */
    const put = (key: TunnelKey.TunnelKey) =>
      SubscriptionRef.modifyEffect(ring, (keys) => {
        const [newest] = keys
        if (TunnelKey.same(newest, key)) return Effect.succeed([Option.none<TunnelKey.TunnelKey>(), keys])
        const known = keys.find((other) => TunnelKey.same(other, key))
        if (known === undefined && keys.length >= limit) return new TooManyKeys()
        if (known !== undefined) expiry.cancel(known)
        const others = keys.filter((other) => other !== known)
        return Effect.succeed([Option.some(newest), [known ?? key, ...others] satisfies InForce])
      })

    return {
      inForce: SubscriptionRef.get(ring),
      changes: ring.changes,
      replace: (key, options) =>
        Effect.gen(function* () {
          const grace = Duration.decode(options?.grace ?? keyGrace)
          const replaced = yield* put(yield* Effect.provideService(TunnelKey.make(key), Crypto, crypto))
          if (Option.isNone(replaced)) return
          yield* warnOf(key)
          yield* expiry.start(replaced.value, grace)
          yield* events.publish(() => ({ _tag: "Rotated", keys: "tunnel" }))
          const previous =
            Duration.toMillis(grace) > 0 ? `stays valid for ${Duration.format(grace)}` : "is no longer valid"
          yield* Effect.logInfo(`replaced the tunnel key; the previous one ${previous}`)
        }).pipe(turn.withPermits(1), Effect.uninterruptible)
    }
  })

// internal

/** Removes replaced keys from the ring when their grace period ends. */
const makeExpiry = (ring: SubscriptionRef.SubscriptionRef<InForce>) =>
  Effect.map(Deadlines, (deadlines) => {
    const cancels = new Map<TunnelKey.TunnelKey, () => void>()
    const remove = (key: TunnelKey.TunnelKey) =>
      SubscriptionRef.update(ring, ([newest, ...others]): InForce => {
        cancels.delete(key)
        return [newest, ...others.filter((other) => other !== key)]
      })
    return {
      start: (key: TunnelKey.TunnelKey, grace: Duration.Duration) => {
        if (Duration.toMillis(grace) <= 0) return remove(key)
        const expire = Effect.zipRight(remove(key), Effect.logInfo("a previous tunnel key has expired"))
        return Effect.sync(() => void cancels.set(key, deadlines.after(grace, expire)))
      },
      cancel: (key: TunnelKey.TunnelKey) => {
        cancels.get(key)?.()
        cancels.delete(key)
      }
    }
  })
