/**
 * The cryptographic primitives of the handshake, as a service: real ones in `NodeCrypto`, seeded ones in a simulation.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/** A key pair of X25519 (RFC 7748). The private key cannot be read. */
export interface KeyPair {
  /** 32 bytes. */
  readonly publicKey: Uint8Array
  /** The 32 bytes that both sides compute, or `None` when the other public key is not a valid one. */
  readonly agree: (publicKey: Uint8Array) => Option.Option<Uint8Array>
}

/** What ChaCha20-Poly1305 (RFC 8439) encrypts or decrypts. */
export interface Sealing {
  /** 32 bytes. */
  readonly key: Uint8Array
  /** 12 bytes that this key never had before. */
  readonly nonce: Uint8Array
  /** Bytes that are not encrypted, and protected against changes. */
  readonly associated: Uint8Array
  readonly data: Uint8Array
}

export class Crypto extends Context.Tag("nodepass/Crypto")<
  Crypto,
  {
    /** `length` bytes that cannot be predicted. */
    readonly randomBytes: (length: number) => Effect.Effect<Uint8Array>
    /** SHA-256: 32 bytes. */
    readonly hash: (data: Uint8Array) => Uint8Array
    /** HMAC-SHA-256: 32 bytes. */
    readonly hmac: (key: Uint8Array, data: Uint8Array) => Uint8Array
    /** The key pair of these 32 random bytes. */
    readonly keyPair: (privateKey: Uint8Array) => KeyPair
    /** The encrypted data, and 16 bytes that protect it. */
    readonly seal: (sealing: Sealing) => Uint8Array
    /** The decrypted data, or `None` when it was sealed otherwise. */
    readonly open: (sealing: Sealing) => Option.Option<Uint8Array>
    /** 32 bytes from a secret that a person chose, slow on purpose (scrypt, N = 2^15, r = 8, p = 1: 32 MiB, some 60 ms). */
    readonly stretch: (secret: Uint8Array, salt: Uint8Array) => Effect.Effect<Uint8Array>
  }
>() {}
