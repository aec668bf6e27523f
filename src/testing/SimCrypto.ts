/**
 * `Crypto` for simulations: equal seeds give equal bytes, and stretching is fast. It is not secure.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as NodeCrypto from "node:crypto"
import { Crypto, type KeyPair, type Sealing } from "../transport/Crypto.js"

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
      hash,
      hmac,
      keyPair,
      seal,
      open,
      stretch: (secret, salt) => Effect.sync(() => hmac(salt, secret))
    })
  })

// internal

const hash = (data: Uint8Array): Uint8Array => NodeCrypto.createHash("sha256").update(data).digest()

const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  NodeCrypto.createHmac("sha256", key).update(data).digest()

/** Powers of 3 modulo a prime of 127 bits: both sides get the same number, in a tenth of the time of X25519. */
const modulus = 2n ** 127n - 1n

const power = (base: bigint, exponent: bigint): bigint => {
  let [result, square] = [1n, base % modulus]
  for (let left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * square) % modulus
    square = (square * square) % modulus
  }
  return result
}

const toNumber = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex") || "0"}`)
const toBytes = (value: bigint): Uint8Array => Buffer.from(value.toString(16).padStart(64, "0"), "hex")

const keyPair = (privateKey: Uint8Array): KeyPair => {
  const exponent = toNumber(privateKey.subarray(0, 8))
  return {
    publicKey: toBytes(power(3n, exponent)),
    agree: (other) => {
      const value = toNumber(other)
      return value === 0n || value >= modulus ? Option.none() : Option.some(toBytes(power(value, exponent)))
    }
  }
}

/** Each byte is changed by a byte of the key and of the nonce, which is no encryption, and authenticated by an HMAC. */
const masked = ({ data, key, nonce }: Sealing): Uint8Array => {
  const mask = hmac(key, nonce)
  return data.map((byte, at) => byte ^ (mask[at % mask.length] ?? 0))
}

const tagOf = ({ associated, key, nonce }: Sealing, data: Uint8Array): Uint8Array =>
  hmac(key, Buffer.concat([nonce, associated, data])).subarray(0, 16)

const seal = (sealing: Sealing): Uint8Array => {
  const data = masked(sealing)
  return Buffer.concat([data, tagOf(sealing, data)])
}

const open = (sealing: Sealing): Option.Option<Uint8Array> => {
  const end = sealing.data.length - 16
  if (end < 0) return Option.none()
  const data = sealing.data.subarray(0, end)
  return Buffer.compare(tagOf(sealing, data), sealing.data.subarray(end)) === 0
    ? Option.some(masked({ ...sealing, data }))
    : Option.none()
}
