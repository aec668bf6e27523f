/**
 * `Crypto` that stretches each tunnel key once: stretching is slow on purpose, and many instances share a key.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import { Crypto } from "../transport/Crypto.js"

export const layer: Layer.Layer<Crypto, never, Crypto> = Layer.effect(
  Crypto,
  Effect.map(Crypto, (crypto) => {
    const cache = new Map<string, Effect.Effect<Uint8Array>>()
    return Crypto.of({
      ...crypto,
      stretch: (secret, salt) =>
        Effect.suspend(() => {
          const name = Encoding.encodeHex(crypto.hmac(salt, secret))
          const cached = cache.get(name)
          if (cached !== undefined) return cached
          if (cache.size >= maxKeys) cache.clear()
          // Instances that start together wait for the same computation, so one that is interrupted must not cancel it.
          return Effect.flatten(
            Effect.tap(Effect.cached(Effect.uninterruptible(crypto.stretch(secret, salt))), (stretched) =>
              Effect.sync(() => cache.set(name, stretched))
            )
          )
        })
    })
  })
)

// internal

const maxKeys = 1024
