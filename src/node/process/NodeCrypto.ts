/**
 * `Crypto` over `node:crypto`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NodeCrypto from "node:crypto"
import { Crypto } from "../../transport/Crypto.js"

export const layer: Layer.Layer<Crypto> = Layer.succeed(
  Crypto,
  Crypto.of({
    randomBytes: (length) => Effect.sync(() => NodeCrypto.randomBytes(length)),
    hmac: (key, data) => NodeCrypto.createHmac("sha256", key).update(data).digest(),
    stretch: (secret, salt) =>
      Effect.async((resume) => {
        NodeCrypto.scrypt(secret, salt, 32, scryptOptions, (error, stretched) =>
          // Wrong parameters fail, and these are constants. What remains is a lack of memory.
          resume(error === null ? Effect.succeed(stretched) : Effect.die(error))
        )
      })
  })
)

// internal

// scrypt needs 128 * N * r bytes, 32 MiB, and Node refuses what reaches its limit, by default 32 MiB.
const scryptOptions = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }
