/**
 * The handshake of a TLS session, and the check of the certificate that the peer presents.
 */
import { createHash, X509Certificate } from "node:crypto"
import type * as Address from "../../core/Address.js"
import * as Tls from "../../transport/Tls.js"
import type { TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import { namesOf } from "../socket/NodeCertificates.js"
import type { OpenSsl } from "./tls/OpenSsl.js"
import { verifyResults } from "./tls/OpenSslSessions.js"
import type { TlsSession } from "./tls/TlsSession.js"

export interface Options {
  readonly openSsl: OpenSsl
  readonly as: Tls.Side
  readonly peer: Address.Address
}

/**
 * Continues a handshake as far as it can now. Returns what it waits for, or why it failed.
 *
 * `Done`: the handshake is complete and the certificate of the peer is trusted. The caller frees a session that failed.
 */
export const advance = (
  session: TlsSession,
  { as, openSsl, peer }: Options
): "Done" | "WantRead" | "WantWrite" | Tls.TlsError | TransportError => {
  const progress = session.handshake()
  if (progress === "Ended") return Tls.handshake(peer, "it ended the connection")
  if (typeof progress === "number") return Errno.fromErrno("read", peer, -progress)
  if (typeof progress === "object") return Tls.handshake(peer, progress.reason)
  if (progress !== "Done" || as.side === "server") return progress
  return certificateError(openSsl, session.session, { trust: as.trust, peer }) ?? "Done"
}

// internal

const certificateError = (
  openSsl: OpenSsl,
  session: bigint,
  { peer, trust }: { readonly peer: Address.Address; readonly trust: Tls.Trust }
): Tls.TlsError | undefined => {
  const der = openSsl.peerCertificate(session)
  if (der === undefined) return Tls.handshake(peer, "it showed no certificate")
  if (trust._tag === "Pinned") {
    const fingerprint = createHash("sha256").update(der).digest("hex")
    return fingerprint === trust.fingerprint ? undefined : Tls.notPinned(peer, fingerprint, trust.fingerprint)
  }
  const result = openSsl.verifyResult(session)
  if (result === verifyResults.ok) return undefined
  const leaf = new X509Certificate(der)
  if (result === verifyResults.wrongName) return Tls.wrongName(peer, namesOf(leaf), trust.name)
  if (result === "CERT_HAS_EXPIRED") return Tls.expired(peer, Date.parse(leaf.validTo))
  if (result === "CERT_NOT_YET_VALID") return Tls.early(peer, Date.parse(leaf.validFrom))
  return Tls.untrusted(peer, result)
}
