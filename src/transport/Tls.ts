/**
 * What each side of a TLS connection presents or trusts, and why a handshake fails.
 */
import * as DateTime from "effect/DateTime"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import type { Certificate } from "./Certificates.js"
import { withoutStack } from "../core/WithoutStack.js"

/**
 * The TLS handshake with this peer failed. `Untrusted`: no trusted authority issued its certificate. `WrongName`: the
 * certificate is for other names. `Expired`: it is not valid now. `NotPinned`: its fingerprint is not the expected one.
 * `Handshake`: the peer does not support TLS 1.3, or aborted the handshake.
 */
export class TlsError extends withoutStack(
  Schema.TaggedError<TlsError>()("TlsError", {
    peer: Address,
    reason: Schema.Literal("Untrusted", "WrongName", "Expired", "NotPinned", "Handshake"),
    /** What is wrong. Follows the peer's address in the message. */
    detail: Schema.String
  })
) {
  override get message(): string {
    return this.reason === "Handshake"
      ? `no TLS 1.3 with ${this.peer}: ${this.detail}`
      : `certificate of ${this.peer} refused: ${this.detail}`
  }
}

/** Which certificates a client accepts. */
export type Trust =
  /** Only the certificate with this fingerprint (64 lower-case hex digits). Its issuer, names and dates are not checked. */
  | { readonly _tag: "Pinned"; readonly fingerprint: string }
  /** A valid certificate for this DNS name or IP address, issued by an authority of the system or of these PEM texts. */
  | { readonly _tag: "Authority"; readonly name: string; readonly authorities: ReadonlyArray<string> }

/** The side of the handshake. The server presents a certificate, and the client verifies it. */
export type Side =
  | { readonly side: "server"; readonly certificate: Certificate }
  | { readonly side: "client"; readonly trust: Trust }

export const untrusted = (peer: Address, why: string): TlsError =>
  new TlsError({ peer, reason: "Untrusted", detail: `no trusted authority issued it (${why})` })

export const wrongName = (peer: Address, names: ReadonlyArray<string>, name: string): TlsError =>
  new TlsError({ peer, reason: "WrongName", detail: `it is for ${names.join(", ") || "no name"}, not for ${name}` })

export const expired = (peer: Address, expires: number): TlsError =>
  new TlsError({ peer, reason: "Expired", detail: `it expired at ${iso(expires)}` })

export const early = (peer: Address, begins: number): TlsError =>
  new TlsError({ peer, reason: "Expired", detail: `it is not valid before ${iso(begins)}` })

export const notPinned = (peer: Address, fingerprint: string, pinned: string): TlsError =>
  new TlsError({ peer, reason: "NotPinned", detail: `its fingerprint is ${fingerprint}, not ${pinned}` })

export const handshake = (peer: Address, why: string): TlsError =>
  new TlsError({ peer, reason: "Handshake", detail: why })

// internal

const iso = (millis: number): string => DateTime.formatIso(DateTime.unsafeMake(millis))
