/**
 * The OpenSSL contexts in use: one for each certificate of a server, and one for each set of authorities of a client.
 */
import * as Redacted from "effect/Redacted"
import { isIP } from "node:net"
import { rootCertificates } from "node:tls"
import type * as Tls from "../../../transport/Tls.js"
import * as SystemAuthorities from "../../socket/SystemAuthorities.js"
import type { OpenSsl } from "./OpenSsl.js"
import type { DetachedSession } from "./TlsSession.js"
import { noBytes } from "./TlsWire.js"

export interface TlsContexts {
  /** A new session, which reads `received` first, once `SystemAuthorities` are loaded. The caller frees it. Throws when OpenSSL cannot use the certificate or the name. */
  readonly newSession: (as: Tls.Side, received?: Uint8Array) => DetachedSession
  /** Frees the contexts. Sessions stay valid. */
  readonly free: () => void
}

export const make = (openSsl: OpenSsl): TlsContexts => {
  /** Least recently used first. */
  const cache = new Map<unknown, bigint>()
  const cached = (key: unknown, prepare: (context: bigint) => void): bigint => {
    const context = cache.get(key) ?? create(prepare)
    cache.delete(key)
    cache.set(key, context)
    for (const [oldest, context] of cache) {
      if (cache.size <= maxContexts) break
      cache.delete(oldest)
      openSsl.freeContext(context)
    }
    return context
  }
  const create = (prepare: (context: bigint) => void): bigint => {
    const context = openSsl.newContext()
    try {
      prepare(context)
    } catch (cause) {
      openSsl.freeContext(context)
      throw cause
    }
    return context
  }
  const contextFor = (as: Tls.Side): bigint => {
    if (as.side === "server") {
      const { chain, key } = as.certificate
      return cached(as.certificate, (context) => openSsl.useCertificate(context, chain, Redacted.value(key)))
    }
    const authorities = as.trust._tag === "Pinned" ? undefined : as.trust.authorities
    return cached(authorities?.join("\n") ?? "pinned", (context) => {
      if (authorities === undefined) return
      // Some 50 ms: OpenSSL parses every authority that the system has.
      openSsl.trust(context, [...rootCertificates, ...SystemAuthorities.texts(), ...authorities].join("\n"))
    })
  }
  const setHost = (session: bigint, host: string) => {
    // Neither certificates nor the server name extension have the dot that may end a name.
    const name = host.replace(/\.$/, "")
    openSsl.setExpectedHost(session, name)
    // RFC 6066: an IP address is not a server name.
    if (isIP(name) === 0) openSsl.setServerName(session, name)
  }
  return {
    newSession: (as, received = noBytes) => {
      const session = openSsl.newSession(contextFor(as), as.side)
      try {
        if (as.side === "client" && as.trust._tag === "Authority") setHost(session, as.trust.name)
      } catch (cause) {
        openSsl.freeSession(session)
        throw cause
      }
      return { session, received, unsent: noBytes }
    },
    free: () => {
      for (const context of cache.values()) openSsl.freeContext(context)
      cache.clear()
    }
  }
}

// internal

/** Contexts in the cache. A session keeps its own context until it is freed. */
const maxContexts = 16
