/**
 * How TLS protects connections: `tls=0`, `1` or `2` in command URLs, and the same digits in the server's terms.
 */
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * From weakest to strongest:
 * - `plain`: no TLS
 * - `self-signed`: TLS with a certificate made at start; the client pins its fingerprint
 * - `verified`: TLS with certificate files; the client verifies authority, host name and dates
 */
export const TlsMode = Schema.Literal("plain", "self-signed", "verified")
export type TlsMode = typeof TlsMode.Type

/** Digit ⇄ mode. */
export const FromDigit = Schema.transformLiterals(["0", "plain"], ["1", "self-signed"], ["2", "verified"])

export const fromDigit = (text: string): Option.Option<TlsMode> => Schema.decodeUnknownOption(FromDigit)(text)

export const toDigit: (mode: TlsMode) => "0" | "1" | "2" = Schema.encodeSync(FromDigit)

export const isWeaker = (mode: TlsMode, than: TlsMode): boolean => toDigit(mode) < toDigit(than)
