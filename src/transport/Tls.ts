/**
 * Whom a side of a TLS connection believes, and the words for not believing it.
 */
import * as DateTime from "effect/DateTime"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import type { Certificate } from "./Certificates.js"

/**
 * No TLS connection with this peer. `Untrusted`: no known authority has issued its certificate. `WrongName`: that is for others.
 * `Expired`: it is not valid now. `NotPinned`: it is not the expected one. `Handshake`: the peer speaks no TLS 1.3, or gave up.
 */
export class TlsError extends Schema.TaggedError<TlsError>()("TlsError", {
  peer: Address,
  reason: Schema.Literal("Untrusted", "WrongName", "Expired", "NotPinned", "Handshake"),
  /** What is wrong, to stand behind the peer's address. */
  detail: Schema.String
}) {
  override get message(): string {
    return this.reason === "Handshake"
      ? `no TLS 1.3 with ${this.peer}: ${this.detail}`
      : `certificate of ${this.peer} refused: ${this.detail}`
  }
}

/** What a client believes. */
export type Trust =
  /** Exactly the certificate with this fingerprint (64 lower-case hex digits), whoever issued it and whatever its dates. */
  | { readonly _tag: "Pinned"; readonly fingerprint: string }
  /** A certificate for this DNS name or IP address, valid now, issued by an authority of the system or of these PEM texts. */
  | { readonly _tag: "Authority"; readonly name: string; readonly authorities: ReadonlyArray<string> }

/** Which side we are. The server shows a certificate, the client looks at it. */
export type Side =
  | { readonly side: "server"; readonly certificate: Certificate }
  | { readonly side: "client"; readonly trust: Trust }

/** The refusals, in one sentence each. */
export const untrusted = (peer: Address, why: string): TlsError =>
  new TlsError({ peer, reason: "Untrusted", detail: `no authority known here has issued it (${why})` })

export const wrongName = (peer: Address, names: ReadonlyArray<string>, name: string): TlsError =>
  new TlsError({ peer, reason: "WrongName", detail: `it is for ${names.join(", ") || "nobody"}, not for ${name}` })

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
