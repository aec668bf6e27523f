/**
 * The cryptographic primitives of the handshake, as a service: real ones in `NodeCrypto`, seeded ones in a simulation.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

export class Crypto extends Context.Tag("nodepass/Crypto")<
  Crypto,
  {
    /** `length` bytes that cannot be predicted. */
    readonly randomBytes: (length: number) => Effect.Effect<Uint8Array>
    /** HMAC-SHA-256: 32 bytes. */
    readonly hmac: (key: Uint8Array, data: Uint8Array) => Uint8Array
    /** 32 bytes from a secret that a person chose, slow on purpose (scrypt, N = 2^15, r = 8, p = 1: 32 MiB, some 60 ms). */
    readonly stretch: (secret: Uint8Array, salt: Uint8Array) => Effect.Effect<Uint8Array>
  }
>() {}
