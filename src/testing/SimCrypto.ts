/**
 * `Crypto` for simulations: equal seeds give equal bytes, and stretching is fast. It is not secure.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NodeCrypto from "node:crypto"
import { Crypto } from "../transport/Crypto.js"

/** Each build of the layer starts with the same bytes. Give hosts different seeds when their bytes must differ. */
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
