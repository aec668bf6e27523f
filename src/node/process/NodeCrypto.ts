/**
 * `Crypto` over `node:crypto`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as NodeCrypto from "node:crypto"
import { Crypto, type KeyPair, type Sealing } from "../../transport/Crypto.js"

export const layer: Layer.Layer<Crypto> = Layer.sync(Crypto, () =>
  Crypto.of({
    randomBytes: (length) => Effect.sync(() => NodeCrypto.randomBytes(length)),
    hash: (data) => NodeCrypto.createHash("sha256").update(data).digest(),
    hmac: (key, data) => NodeCrypto.createHmac("sha256", key).update(data).digest(),
    keyPair,
    seal,
    open,
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

const tagLength = 16

const seal = ({ associated, data, key, nonce }: Sealing): Uint8Array => {
  const cipher = NodeCrypto.createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: tagLength })
  cipher.setAAD(associated, { plaintextLength: data.length })
  return Buffer.concat([cipher.update(data), cipher.final(), cipher.getAuthTag()])
}

const open = ({ associated, data, key, nonce }: Sealing): Option.Option<Uint8Array> => {
  const end = data.length - tagLength
  if (end < 0) return Option.none()
  const decipher = NodeCrypto.createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: tagLength })
  decipher.setAAD(associated, { plaintextLength: end })
  decipher.setAuthTag(data.subarray(end))
  const opened = decipher.update(data.subarray(0, end))
  return Option.as(Option.liftThrowable(() => decipher.final())(), opened)
}

/** As JSON Web Keys (RFC 8037), which Node takes as they are: with DER, OpenSSL's decoders take ten times as long. */
const keyPair = (bytes: Uint8Array): KeyPair => {
  const privateKey = NodeCrypto.createPrivateKey({ key: jwk({ d: base64Url(bytes), x: "" }), format: "jwk" })
  const { x = "" } = privateKey.export({ format: "jwk" })
  return {
    publicKey: Buffer.from(x, "base64url"),
    // OpenSSL refuses the points that make the result zero, whatever the private key is.
    agree: Option.liftThrowable((other) => {
      const publicKey = NodeCrypto.createPublicKey({ key: jwk({ x: base64Url(other) }), format: "jwk" })
      return NodeCrypto.diffieHellman({ privateKey, publicKey })
    })
  }
}

const jwk = (parts: NodeCrypto.JsonWebKey): NodeCrypto.JsonWebKey => ({ kty: "OKP", crv: "X25519", ...parts })

const base64Url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url")
