/**
 * The keys of a session, and the seals of the lines on its pool connections.
 *
 * A sealed line is a URL reference whose last query parameter is `mac`: the first 16 bytes of the HMAC-SHA-256 of the
 * line without that parameter, in hex. Source: docs/protocol.md §Seals.
 */
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Crypto } from "../transport/Crypto.js"
import * as Frame from "./Frame.js"

/** Seals lines and checks their seals. The key inside cannot be read. */
export interface Seal {
  readonly seal: (line: string) => string
  /** The line without its seal, or `None` when the seal is missing or wrong. Compares in constant time. */
  readonly open: (sealed: string) => Option.Option<string>
}

/** The keys of one session. Both sides derive them from the handshake that began it, and never send one. */
export interface SessionKeys {
  /** Names the session in clear text: 16 hex digits that reveal nothing about its keys. */
  readonly id: string
  /** What the others are derived from. It decrypts nothing: it only proves that a connection belongs to the session. */
  readonly secret: Redacted.Redacted<Uint8Array>
  /** Seals the lines that the client sends on the pool connection with this count. */
  readonly join: (count: number) => Seal
  /** Seals the lines that the server sends on the pool connection with this count. */
  readonly admit: (count: number) => Seal
}

/** The keys of the session that begins with the handshake that has this secret. */
export const session = (crypto: Crypto["Type"], secret: Redacted.Redacted<Uint8Array>): SessionKeys => {
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
    secret,
    join: blocks("join"),
    admit: blocks("admit")
  }
}

/** How many consecutive counts of pool connections share their keys. */
export const blockLength = 32_768

/** A key for one purpose. From it the first key cannot be computed. */
export const derive = (crypto: Crypto["Type"], key: Redacted.Redacted<Uint8Array>, label: string): Uint8Array =>
  crypto.hmac(Redacted.value(key), Frame.fromText(label))

// internal

const sealed = /^([^#]*)([?&])mac=([0-9a-f]{32})(#[^#]*)$/

const markAfter = (head: string): "?" | "&" => (head.includes("?") ? "&" : "?")

const makeSeal = (crypto: Crypto["Type"], key: Uint8Array): Seal => {
  const mac = (line: string) => Encoding.encodeHex(crypto.hmac(key, Frame.fromText(line)).subarray(0, 16))
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
    }
  }
}

/** Compares in a time that depends only on the lengths. */
const equal = (left: string, right: string): boolean => {
  let difference = left.length ^ right.length
  for (let at = 0; at < left.length; at++) difference |= left.charCodeAt(at) ^ right.charCodeAt(at)
  return difference === 0
}
