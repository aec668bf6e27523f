/**
 * The ciphers and session keys of both sides of a control connection, as a handshake agrees on them.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto } from "../src/transport/Crypto.js"
import * as SimCrypto from "../src/testing/SimCrypto.js"
import type * as FirstMessage from "../src/wire/FirstMessage.js"
import * as Key from "../src/wire/Key.js"
import * as Noise from "../src/wire/Noise.js"

/** Both sides after a handshake by this key. Equal seeds agree on equal keys. */
export const agree = (seed: number, key = new Uint8Array(32)) =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const options = { psk: Redacted.make(key), prologue: new Uint8Array(0) }
    const payload = new Uint8Array(0)
    const initiated = Noise.initiate(crypto, { ...options, ephemeral: yield* Noise.ephemeral, payload })
    const read = Option.getOrThrow(Noise.read(crypto, options, initiated.message))
    const server = Option.getOrThrow(read.answer(yield* Noise.ephemeral, payload))
    const client = Option.getOrThrow(initiated.read(server.message))
    return {
      client: { ciphers: client.ciphers, keys: Key.session(crypto, client.secret) },
      server: { ciphers: server.ciphers, keys: Key.session(crypto, server.secret) }
    }
  }).pipe(Effect.provide(SimCrypto.layer(seed)), Effect.runSync)

/** Accepts everything that a server would. */
export const guard: FirstMessage.HelloGuard = {
  isNew: () => true,
  stretch: (_, stretching) => Effect.asSome(stretching)
}
