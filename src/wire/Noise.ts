/**
 * The Noise protocol `Noise_NNpsk0_25519_ChaChaPoly_SHA256`, revision 34: two messages after which both sides have fresh keys
 * that no third party has, and each has proved that it knows the pre-shared key.
 *
 * ```
 * initiator                                    responder
 *   -> psk, e, payload          initiate ──▶ read        the payload proves the key: no Diffie-Hellman so far
 *   <- e, ee, payload    Initiated.read ◀── Read.answer
 * ```
 *
 * Values only: nothing is sent here. Source: https://noiseprotocol.org/noise.html, docs/protocol.md §Handshake.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto, type KeyPair } from "../transport/Crypto.js"
import { concat } from "./Frame.js"

/** 32 bytes that both sides know before the handshake. */
export type Psk = Redacted.Redacted<Uint8Array>

/** Encrypts or decrypts the messages of one direction, each once and in order. */
export interface Cipher {
  readonly encrypt: (message: Uint8Array) => Uint8Array
  /** `None` for anything but the next message of the other side. The cipher can go on after that. */
  readonly decrypt: (message: Uint8Array) => Option.Option<Uint8Array>
  /** Replaces the key by one from which it cannot be computed. Both sides do it after the same message. */
  readonly rekey: () => void
}

export interface Ciphers {
  readonly sending: Cipher
  readonly receiving: Cipher
}

/** The result of a handshake: equal on both sides, and secret. */
export interface Agreed {
  readonly ciphers: Ciphers
  /** 32 bytes for keys of other purposes. They depend on every byte of the handshake. */
  readonly secret: Redacted.Redacted<Uint8Array>
}

export interface Initiated {
  /** The first message. */
  readonly message: Uint8Array
  /** The payload of the second message, or `None` when its sender does not know the key or answers something else. */
  readonly read: (message: Uint8Array) => Option.Option<Agreed & { readonly payload: Uint8Array }>
}

export interface Read {
  readonly payload: Uint8Array
  /** The initiator's public key, which is another one in each handshake. */
  readonly ephemeral: Uint8Array
  /** The second message. `None` when the public key in the first one is not valid. */
  readonly answer: (ephemeral: KeyPair, payload: Uint8Array) => Option.Option<Agreed & { readonly message: Uint8Array }>
}

export interface Options {
  readonly psk: Psk
  /** What was sent in clear text before. The handshake fails when both sides do not have the same. */
  readonly prologue: Uint8Array
}

/** Bytes of a public key. */
export const keyLength = 32
/** Bytes by which an encrypted message is longer. */
export const tagLength = 16

/** A fresh key pair. Use it in one handshake. */
export const ephemeral: Effect.Effect<KeyPair, never, Crypto> = Effect.flatMap(Crypto, ({ keyPair, randomBytes }) =>
  Effect.map(randomBytes(keyLength), keyPair)
)

/** Begins a handshake. */
export const initiate = (
  crypto: Crypto["Type"],
  { ephemeral, payload, ...options }: Options & { readonly ephemeral: KeyPair; readonly payload: Uint8Array }
): Initiated => {
  const first = seal(crypto, withPublicKey(crypto, start(crypto, options), ephemeral.publicKey), payload)
  return {
    message: concat([ephemeral.publicKey, first.sealed]),
    read: (message) => {
      const theirs = message.subarray(0, keyLength)
      return Option.flatMap(agree(ephemeral, theirs), (shared) => {
        const state = withKey(crypto, withPublicKey(crypto, first.state, theirs), shared)
        return Option.map(open(crypto, state, message.subarray(keyLength)), ({ payload, state }) => {
          const { ours, secret, theirs } = split(crypto, state)
          return { payload, secret, ciphers: { sending: ours, receiving: theirs } }
        })
      })
    }
  }
}

/** Reads the first message. `None` when its sender does not know the key, or has another prologue. */
export const read = (crypto: Crypto["Type"], options: Options, message: Uint8Array): Option.Option<Read> => {
  const theirs = message.slice(0, keyLength)
  if (theirs.length < keyLength) return Option.none()
  const opened = open(crypto, withPublicKey(crypto, start(crypto, options), theirs), message.subarray(keyLength))
  return Option.map(opened, ({ payload, state: first }) => ({
    payload,
    ephemeral: theirs,
    answer: (ephemeral, payload) =>
      Option.map(agree(ephemeral, theirs), (shared) => {
        const state = withKey(crypto, withPublicKey(crypto, first, ephemeral.publicKey), shared)
        const second = seal(crypto, state, payload)
        const { ours, secret, theirs } = split(crypto, second.state)
        return {
          message: concat([ephemeral.publicKey, second.sealed]),
          secret,
          ciphers: { sending: theirs, receiving: ours }
        }
      })
  }))
}

// internal

/** The `SymmetricState` of the specification. In this pattern each key seals one message, so that there is no counter. */
interface State {
  readonly chaining: Uint8Array
  readonly hash: Uint8Array
  readonly key: Uint8Array
}

const utf8 = new TextEncoder()
const protocolName = utf8.encode("Noise_NNpsk0_25519_ChaChaPoly_SHA256")
const empty = new Uint8Array(0)

/** Everything up to and with the token `psk`. */
const start = (crypto: Crypto["Type"], { prologue, psk }: Options): State => {
  const { chaining, hashed, key, name } = begun.get(psk) ?? begin(crypto, psk)
  return { chaining, key, hash: mixed(crypto, mixed(crypto, name, prologue), hashed) }
}

/**
 * The part of a handshake that depends on the pre-shared key alone. Computed once, it makes the refusal of an unauthenticated
 * peer cost some 50 instead of 85 µs.
 */
const begun = new WeakMap<Psk, ReturnType<typeof begin>>()

const begin = (crypto: Crypto["Type"], psk: Psk) => {
  // The name is longer than a hash, so its hash stands for it.
  const name = crypto.hash(protocolName)
  const { first, second, third } = derive(crypto, name, Redacted.value(psk))
  const result = { name, chaining: first, hashed: second, key: third() }
  begun.set(psk, result)
  return result
}

/** The token `e`. With a pre-shared key it changes the key too. */
const withPublicKey = (crypto: Crypto["Type"], state: State, publicKey: Uint8Array): State => ({
  ...withKey(crypto, state, publicKey),
  hash: mixed(crypto, state.hash, publicKey)
})

const withKey = (crypto: Crypto["Type"], state: State, material: Uint8Array): State => {
  const { first, second } = derive(crypto, state.chaining, material)
  return { ...state, chaining: first, key: second }
}

const mixed = (crypto: Crypto["Type"], hash: Uint8Array, data: Uint8Array): Uint8Array =>
  crypto.hash(concat([hash, data]))

const seal = (crypto: Crypto["Type"], state: State, data: Uint8Array) => {
  const sealed = crypto.seal({ key: state.key, nonce: nonceOf(0n), associated: state.hash, data })
  return { sealed, state: { ...state, hash: mixed(crypto, state.hash, sealed) } }
}

const open = (crypto: Crypto["Type"], state: State, data: Uint8Array) =>
  Option.map(crypto.open({ key: state.key, nonce: nonceOf(0n), associated: state.hash, data }), (payload) => ({
    payload,
    state: { ...state, hash: mixed(crypto, state.hash, data) }
  }))

const agree = (own: KeyPair, other: Uint8Array): Option.Option<Uint8Array> =>
  other.length === keyLength ? own.agree(other) : Option.none()

/** The keys of both directions, and as a third output a secret for other purposes. */
const split = (crypto: Crypto["Type"], { chaining, hash }: State) => {
  const { first, second, third } = derive(crypto, chaining, empty)
  const secret = crypto.hmac(third(), concat([utf8.encode("nodepass-effect/2 session"), hash]))
  return { ours: makeCipher(crypto, first), theirs: makeCipher(crypto, second), secret: Redacted.make(secret) }
}

/** The function HKDF of the specification. Most callers need two outputs, and each costs an HMAC. */
const derive = (crypto: Crypto["Type"], key: Uint8Array, material: Uint8Array) => {
  const temporary = crypto.hmac(key, material)
  const first = crypto.hmac(temporary, Uint8Array.of(1))
  const second = crypto.hmac(temporary, concat([first, Uint8Array.of(2)]))
  return { first, second, third: () => crypto.hmac(temporary, concat([second, Uint8Array.of(3)])) }
}

/** Four zero bytes, and the number in eight bytes, the lowest first. */
const nonceOf = (number: bigint): Uint8Array => {
  const nonce = new Uint8Array(12)
  new DataView(nonce.buffer).setBigUint64(4, number, true)
  return nonce
}

const lastNonce = 2n ** 64n - 1n

const makeCipher = (crypto: Crypto["Type"], initial: Uint8Array): Cipher => {
  let key = initial
  // Goes on after a new key, so that a message of an earlier key is refused too. At 65536 messages for each key it cannot end.
  let next = 0n
  return {
    encrypt: (data) => crypto.seal({ key, nonce: nonceOf(next++), associated: empty, data }),
    decrypt: (data) => {
      const opened = crypto.open({ key, nonce: nonceOf(next), associated: empty, data })
      if (Option.isSome(opened)) next++
      return opened
    },
    rekey: () => {
      const data = new Uint8Array(32)
      key = crypto.seal({ key, nonce: nonceOf(lastNonce), associated: empty, data }).slice(0, 32)
    }
  }
}
