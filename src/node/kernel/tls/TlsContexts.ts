/**
 * What TLS sessions are made from: one context of OpenSSL for each certificate shown, and for each set of authorities.
 */
import * as Redacted from "effect/Redacted"
import { isIP } from "node:net"
import { rootCertificates } from "node:tls"
import type * as Tls from "../../../transport/Tls.js"
import { systemAuthorities } from "../../socket/NodeTls.js"
import type { OpenSsl } from "./OpenSsl.js"
import { type Rest } from "./TlsSession.js"
import { none } from "./TlsWire.js"

export interface TlsContexts {
  /** A session of this side, that reads these bytes first. Throws where OpenSSL has no use for a certificate. */
  readonly begin: (as: Tls.Side, received?: Uint8Array) => Rest
  /** Frees them; sessions go on. */
  readonly free: () => void
}

export const make = (openSsl: OpenSsl): TlsContexts => {
  const known = new Map<unknown, bigint>()
  /** To make one of authorities takes some 50 ms: all that a system knows are read. */
  const context = (id: unknown, prepare: (context: bigint) => void): bigint => {
    const found = known.get(id)
    known.delete(id)
    const context = found ?? fresh(prepare)
    known.set(id, context)
    for (const [oldest, context] of known) {
      if (known.size <= limit) break
      known.delete(oldest)
      openSsl.freeContext(context)
    }
    return context
  }
  const fresh = (prepare: (context: bigint) => void): bigint => {
    const context = openSsl.newContext()
    try {
      prepare(context)
    } catch (cause) {
      openSsl.freeContext(context)
      throw cause
    }
    return context
  }
  const contextOf = (as: Tls.Side): bigint => {
    if (as.side === "server") {
      const { chain, key } = as.certificate
      return context(as.certificate, (context) => openSsl.show(context, chain, Redacted.value(key)))
    }
    const authorities = as.trust._tag === "Pinned" ? undefined : as.trust.authorities
    return context(authorities?.join("\n") ?? "pinned", (context) => {
      if (authorities === undefined) return
      openSsl.believe(context, [...rootCertificates, ...systemAuthorities(), ...authorities].join("\n"))
    })
  }
  return {
    begin: (as, received = none) => {
      const session = openSsl.newSession(contextOf(as), as.side)
      if (as.side === "client" && as.trust._tag === "Authority") {
        // The dot that may end a name is neither in certificates nor said to servers.
        const name = as.trust.name.replace(/\.$/, "")
        openSsl.expect(session, name)
        // RFC 6066: an address is no server name.
        if (isIP(name) === 0) openSsl.ask(session, name)
      }
      return { session, received, unsent: none }
    },
    free: () => {
      for (const context of known.values()) openSsl.freeContext(context)
      known.clear()
    }
  }
}

// internal

/** Contexts that are kept: a session has its own for as long as it lives. */
const limit = 16
