/**
 * The tunnel key and the keys derived from it: the stretched key, the keys of one session, and the seals of lines.
 *
 * A sealed line is a URL reference whose last query parameter is `mac`: the first 16 bytes of the HMAC-SHA-256 of the
 * line without that parameter, in hex. Source: docs/protocol.md §Seals.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto } from "../transport/Crypto.js"

/** A key that a person chose, after stretching. Each process stretches a key once. */
export type Stretched = Redacted.Redacted<Uint8Array>

/** Seals lines and checks their seals. The key inside cannot be read. */
export interface Seal {
  readonly seal: (line: string) => string
  /** The line without its seal, or `None` when the seal is missing or wrong. Compares in constant time. */
  readonly open: (sealed: string) => Option.Option<string>
  /** The seal with the next key, which is derived from this one. This key cannot be computed from the next. */
  readonly next: () => Seal
}

/** The keys of one session. Both sides derive the same keys, and never send one. */
export interface SessionKeys {
  /** Names the session in clear text: 16 hex digits that reveal nothing about its keys. */
  readonly id: string
  /** Seals the lines that the client sends on the control connection. */
  readonly client: Seal
  /** Seals the lines that the server sends on the control connection. */
  readonly server: Seal
  /** Seals the lines that the client sends on the pool connection with this count. */
  readonly join: (count: number) => Seal
  /** Seals the lines that the server sends on the pool connection with this count. */
  readonly admit: (count: number) => Seal
}

const utf8 = new TextEncoder()
const salt = utf8.encode("nodepass-effect/1")

/** Stretches the key of a command URL, which takes some 60 ms. Without a key it stretches the empty string, a public key. */
export const stretch = (key: Option.Option<Redacted.Redacted>): Effect.Effect<Stretched, never, Crypto> =>
  Effect.flatMap(Crypto, (crypto) =>
    Effect.map(
      crypto.stretch(utf8.encode(Option.match(key, { onNone: () => "", onSome: Redacted.value })), salt),
      Redacted.make
    )
  )

/** Whether both are the same key. */
export const same = (left: Stretched, right: Stretched): boolean => {
  const [a, b] = [Redacted.value(left), Redacted.value(right)]
  return a.length === b.length && a.every((byte, at) => byte === b[at])
}

/** Seals the client's first line, before there are session keys. */
export const hello = (crypto: Crypto["Type"], key: Stretched): Seal => makeSeal(crypto, derive(crypto, key, "hello"))

/** The keys of the session that starts with these two nonces. */
export const session = (
  crypto: Crypto["Type"],
  key: Stretched,
  nonces: { readonly client: string; readonly server: string }
): SessionKeys => {
  const secret = Redacted.make(derive(crypto, key, `session ${nonces.client} ${nonces.server}`))
  const seal = (label: string) => makeSeal(crypto, derive(crypto, secret, label))
  const blocks = (label: string) => {
    let [last, own] = [0, seal(label)]
    return (count: number): Seal => {
      const block = Math.floor(count / blockLength)
      if (block !== last) [last, own] = [block, seal(block === 0 ? label : `${label} ${block}`)]
      return own
    }
  }
  return {
    id: Encoding.encodeHex(derive(crypto, secret, "id").subarray(0, 8)),
    client: seal("client"),
    server: seal("server"),
    join: blocks("join"),
    admit: blocks("admit")
  }
}

/** How many consecutive counts of pool connections share their keys. */
export const blockLength = 32_768

/** A fresh nonce: 32 hex digits. */
export const nonce: Effect.Effect<string, never, Crypto> = Effect.flatMap(Crypto, (crypto) =>
  Effect.map(crypto.randomBytes(16), Encoding.encodeHex)
)

// internal

const derive = (crypto: Crypto["Type"], key: Redacted.Redacted<Uint8Array>, label: string): Uint8Array =>
  crypto.hmac(Redacted.value(key), utf8.encode(label))

const sealed = /^([^#]*)([?&])mac=([0-9a-f]{32})(#[^#]*)$/

const markAfter = (head: string): "?" | "&" => (head.includes("?") ? "&" : "?")

const makeSeal = (crypto: Crypto["Type"], key: Uint8Array): Seal => {
  const mac = (line: string) => Encoding.encodeHex(crypto.hmac(key, utf8.encode(line)).subarray(0, 16))
  return {
    seal: (line) => {
      const at = line.indexOf("#")
      const head = line.slice(0, at)
      return `${head}${markAfter(head)}mac=${mac(line)}${line.slice(at)}`
    },
    open: (text) => {
      const match = sealed.exec(text)
      const [, head = "", mark = "", given = "", tail = ""] = match ?? []
      const line = head + tail
      // The seal does not cover the mark in front of `mac`, so it must be the one that `seal` writes.
      return equal(mac(line), given) && mark === markAfter(head) ? Option.some(line) : Option.none()
    },
    next: () => makeSeal(crypto, crypto.hmac(key, utf8.encode("next")))
  }
}

/** Compares in a time that depends only on the lengths. */
const equal = (left: string, right: string): boolean => {
  let difference = left.length ^ right.length
  for (let at = 0; at < left.length; at++) difference |= left.charCodeAt(at) ^ right.charCodeAt(at)
  return difference === 0
}
