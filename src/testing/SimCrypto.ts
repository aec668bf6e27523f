/**
 * `Crypto` for simulations: equal seeds give equal bytes, and stretching costs next to nothing. Keeps no secret.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NodeCrypto from "node:crypto"
import { Crypto } from "../transport/Crypto.js"

/** Each build of the layer starts the bytes anew; hosts that must not draw the same ones get seeds of their own. */
export const layer = (seed: number): Layer.Layer<Crypto> =>
  Layer.sync(Crypto, () => {
    let block = 0
    const next = (length: number): Uint8Array => {
      const bytes = new Uint8Array(length)
      for (let at = 0; at < length; at += 32) {
        const digest = NodeCrypto.createHash("sha256").update(`${seed}/${block++}`).digest()
        bytes.set(digest.subarray(0, length - at), at)
      }
      return bytes
    }
    return Crypto.of({
      randomBytes: (length) => Effect.sync(() => next(length)),
      hmac,
      stretch: (secret, salt) => Effect.sync(() => hmac(salt, secret))
    })
  })

// internal

const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  NodeCrypto.createHmac("sha256", key).update(data).digest()
