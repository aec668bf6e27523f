/**
 * The tunnel key, which a URL or a file has and which is never sent, and the pre-shared keys that are derived from it.
 *
 * A key that a person chose is stretched, so that each guess at a recorded handshake costs one scrypt.
 * The salt is the address that the client connects to, so that no table of stretched words serves for two tunnels. A key
 * that a generator made has 128 bits, too many to guess, and is not stretched. Source: docs/protocol.md §Keys.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Address } from "../core/Address.js"
import { Crypto } from "../transport/Crypto.js"
import * as Frame from "./Frame.js"
import * as Key from "./Key.js"
import type { Psk } from "./Noise.js"

/** 32 hex digits that a client sends in clear text. */
export type Salt = string

export interface TunnelKey {
  /** As it was written; `""` when there is none. */
  readonly text: Redacted.Redacted
  /** The pre-shared key for this salt, or `None` when the key is to be stretched for it first. */
  readonly find: (salt: Salt) => Option.Option<Psk>
  /** Stretches the key for a salt, by another thread, in some 60 ms and 32 MiB. Callers at the same time share that. */
  readonly stretch: (salt: Salt) => Effect.Effect<Psk>
  /** Remembers a stretched key, so that it is found. The oldest of more than `maxSalts` is forgotten. */
  readonly keep: (salt: Salt, psk: Psk) => void
  /** The salts that are remembered. */
  readonly salts: () => ReadonlyArray<Salt>
}

/** Stretched keys that are remembered, at most. */
export const maxSalts = 64

/** The salt of a client that connects to this address. */
export const saltOf = (address: Address): Effect.Effect<Salt, never, Crypto> =>
  Effect.map(Crypto, ({ hash }) => {
    const digest = hash(Frame.fromText(`nodepass-effect/2 salt ${String(address).toLowerCase()}`))
    return Encoding.encodeHex(digest.subarray(0, 16))
  })

/** `None` is the key of a URL without one, which everybody knows. */
export const make = (key: Option.Option<Redacted.Redacted>): Effect.Effect<TunnelKey, never, Crypto> =>
  Effect.map(Crypto, (crypto) => {
    const text = Option.getOrElse(key, () => Redacted.make(""))
    const secret = Redacted.make(Frame.fromText(Redacted.value(text)))
    const direct = isStretched(text)
      ? Option.none<Psk>()
      : Option.some(Redacted.make(Key.derive(crypto, secret, "nodepass-effect/2 key")))
    const known = new Map<Salt, Psk>()
    const running = new Map<Salt, Deferred.Deferred<Psk>>()
    // By a fiber of its own: the caller that asked first may be interrupted, and others wait for the same.
    const start = (salt: Salt) =>
      Effect.gen(function* () {
        const result = yield* Deferred.make<Psk>()
        running.set(salt, result)
        const salted = Frame.fromText(`nodepass-effect/2 ${salt}`)
        yield* crypto
          .stretch(Redacted.value(secret), salted)
          .pipe(
            Effect.map(Redacted.make),
            Effect.ensuring(Effect.sync(() => running.delete(salt))),
            Effect.intoDeferred(result),
            Effect.forkDaemon
          )
        return result
      })
    return {
      text,
      find: (salt) => Option.orElse(direct, () => Option.fromNullable(known.get(salt))),
      stretch: (salt) =>
        Effect.flatMap(
          Effect.suspend(() => Effect.fromNullable(running.get(salt)).pipe(Effect.orElse(() => start(salt)))),
          Deferred.await
        ),
      keep: (salt, psk) => {
        if (Option.isSome(direct)) return
        known.delete(salt)
        known.set(salt, psk)
        const [oldest] = known.keys()
        if (known.size > maxSalts && oldest !== undefined) known.delete(oldest)
      },
      salts: () => [...known.keys()]
    }
  })

/** The pre-shared key for a salt that was not received from an unauthenticated peer. Stretches at most once. */
export const derive = (key: TunnelKey, salt: Salt): Effect.Effect<Psk> =>
  Option.match(key.find(salt), {
    onSome: Effect.succeed,
    onNone: () =>
      Effect.tap(key.stretch(salt), (psk) => {
        key.keep(salt, psk)
      })
  })

/** Whether both are the same key. */
export const same = (left: TunnelKey, right: TunnelKey): boolean =>
  Redacted.value(left.text) === Redacted.value(right.text)

// internal

/** Whether the key may be one that a person chose: there is one, and it does not look like one of `generated`. */
const isStretched = (key: Redacted.Redacted): boolean => {
  const text = Redacted.value(key)
  return text !== "" && !(generated.some((pattern) => pattern.test(text)) && new Set(text).size >= minDifferent)
}

/** At least 128 random bits: `openssl rand -hex 16` and longer ones; `nodepass key`, which has a digit among its letters. */
const generated = [/^[0-9a-f]{32,}$/, /^(?=.*[2-7][a-z])[a-z2-7]{26}$/]
const minDifferent = 8
