/**
 * TLS 1.3 over the sockets of `NodeTransport`, with `node:tls`.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Net from "node:net"
import * as NodeTls from "node:tls"
import type * as Address from "../../core/Address.js"
import type { Certificate } from "../../transport/Certificates.js"
import * as Tls from "../../transport/Tls.js"
import { type Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import { fromSocket, socketOptions, underlying } from "./NodeConnection.js"
import { fingerprintOf, namesOf } from "./NodeCertificates.js"
import * as SystemAuthorities from "./SystemAuthorities.js"

/** See `Transport`. When it fails, the caller resets the connection. */
export const secure: Transport["Type"]["secure"] = (connection, as) =>
  Effect.flatMap(SystemAuthorities.load(as), () => {
    const found = underlying(connection)
    if (found === undefined) return Effect.dieMessage("not a connection of this Transport")
    const { buffer, detach, socket, tcp } = found
    const { remote } = connection
    if (socket.destroyed) return Effect.fail(failureOf(remote, socket.errored))
    const secured =
      as.side === "server"
        ? Effect.flatMap(makeServer(socket, as.certificate, detach), (tls) =>
            Effect.as(handshake(tls, "secure", remote), tls)
          )
        : Effect.flatMap(makeClient(socket, as.trust, detach), (tls) =>
            handshake(tls, "secureConnect", remote).pipe(Effect.zipRight(verify(tls, as.trust, remote)), Effect.as(tls))
          )
    return Effect.map(secured, (tls) => fromSocket(tls, remote, { buffer, tcp }))
  })

// internal

const versions = { minVersion: "TLSv1.3", maxVersion: "TLSv1.3" } as const

const makeServer = (socket: Net.Socket, certificate: Certificate, detach: () => void) =>
  Effect.sync(() => {
    const secureContext = serverContext(certificate)
    detach()
    // The types lack `highWaterMark`, which the constructor passes to the stream below.
    const options = { isServer: true, secureContext, highWaterMark: socketOptions.highWaterMark }
    return withErrorListeners(new NodeTls.TLSSocket(socket, options))
  })

const makeClient = (socket: Net.Socket, trust: Tls.Trust, detach: () => void) =>
  Effect.sync(() => {
    const secureContext = clientContext(trust)
    detach()
    const options = {
      socket,
      secureContext,
      allowHalfOpen: true,
      highWaterMark: socketOptions.highWaterMark,
      // RFC 6066: an IP address is not a server name.
      ...(trust._tag === "Authority" && Net.isIP(trust.name) === 0 ? { servername: trust.name } : {}),
      // `verify` does both, with a reason.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined
    }
    return withErrorListeners(NodeTls.connect(options))
  })

/** Handles errors. A server's socket that no `tls.Server` has made reports them by the event `_tlsError` only. */
const withErrorListeners = (socket: NodeTls.TLSSocket): NodeTls.TLSSocket =>
  socket.on("error", () => undefined).on("_tlsError", (cause: Error) => socket.destroy(cause))

/** Completes with the handshake. */
const handshake = (
  socket: NodeTls.TLSSocket,
  event: "secure" | "secureConnect",
  peer: Address.Address
): Effect.Effect<void, Tls.TlsError | TransportError> =>
  Effect.async((resume) => {
    const failed = (cause: unknown) => resume(Effect.fail(failureOf(peer, cause)))
    socket
      // Later: a server writes session tickets right after this event, and only that write notices a reset in between.
      .once(event, () => setImmediate(() => resume(Effect.void)))
      .prependOnceListener("_tlsError", failed)
      .prependOnceListener("error", failed)
      .prependOnceListener("end", () => resume(Effect.fail(Tls.handshake(peer, "it ended the connection"))))
      .once("close", () => failed(socket.errored))
  })

const failureOf = (peer: Address.Address, cause: unknown): Tls.TlsError | TransportError => {
  if (cause === null || cause === undefined) {
    return new TransportError({ operation: "read", address: peer, reason: "Closed" })
  }
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  if (!/^ERR_(?:SSL|TLS)_/.test(code)) return Errno.fromNode("read", peer, cause)
  return Tls.handshake(peer, Predicate.hasProperty(cause, "reason") ? String(cause.reason) : code)
}

const verify = (
  socket: NodeTls.TLSSocket,
  trust: Tls.Trust,
  peer: Address.Address
): Effect.Effect<void, Tls.TlsError> =>
  Effect.suspend(() => {
    const leaf = socket.getPeerX509Certificate()
    if (leaf === undefined) return Effect.fail(Tls.handshake(peer, "it showed no certificate"))
    if (trust._tag === "Pinned") {
      const fingerprint = fingerprintOf(leaf)
      return fingerprint === trust.fingerprint
        ? Effect.void
        : Effect.fail(Tls.notPinned(peer, fingerprint, trust.fingerprint))
    }
    if (!socket.authorized) {
      const code = String(socket.authorizationError)
      if (code === "CERT_HAS_EXPIRED") return Effect.fail(Tls.expired(peer, Date.parse(leaf.validTo)))
      if (code === "CERT_NOT_YET_VALID") return Effect.fail(Tls.early(peer, Date.parse(leaf.validFrom)))
      return Effect.fail(Tls.untrusted(peer, code))
    }
    return NodeTls.checkServerIdentity(trust.name, leaf.toLegacyObject()) === undefined
      ? Effect.void
      : Effect.fail(Tls.wrongName(peer, namesOf(leaf), trust.name))
  })

const serverContexts = new WeakMap<Certificate, NodeTls.SecureContext>()
const serverContext = (certificate: Certificate): NodeTls.SecureContext => {
  const known = serverContexts.get(certificate)
  if (known !== undefined) return known
  const { chain, key } = certificate
  const made = NodeTls.createSecureContext({ ...versions, cert: chain, key: Redacted.value(key) })
  serverContexts.set(certificate, made)
  return made
}

const clientContexts = new Map<string, NodeTls.SecureContext>()
/** One for each set of authorities. OpenSSL takes some 50 ms to read those of a system. */
const clientContext = (trust: Tls.Trust): NodeTls.SecureContext => {
  const authorities = trust._tag === "Pinned" ? undefined : trust.authorities
  const id = authorities?.join("\n") ?? "pinned"
  const known = clientContexts.get(id)
  if (known !== undefined) return known
  const ca =
    authorities === undefined ? [] : [...NodeTls.rootCertificates, ...SystemAuthorities.texts(), ...authorities]
  const made = NodeTls.createSecureContext({ ...versions, ca })
  clientContexts.set(id, made)
  return made
}
