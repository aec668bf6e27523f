/**
 * `Transport.secure` in a simulation: the round trips and errors of TLS 1.3, without encryption.
 *
 * Three records are sent, as in real TLS: the client's hello, the server's certificate, and the client's finished. Everything
 * after these is sent unchanged.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as SimCertificates from "./SimCertificates.js"
import * as Tls from "../transport/Tls.js"
import type { Connection, Transport, TransportError } from "../transport/Transport.js"

/** See `Transport`. */
export const secure: Transport["Type"]["secure"] = (connection, as) =>
  (as.side === "server"
    ? serverHandshake(connection, as.certificate.chain)
    : clientHandshake(connection, as.trust)
  ).pipe(
    Effect.as(connection),
    Effect.onError(() => connection.reset)
  )

// internal

type Step = Effect.Effect<void, Tls.TlsError | TransportError>

const serverHandshake = (connection: Connection, chain: string): Step =>
  Effect.gen(function* () {
    yield* receiveRecord(connection, "hello")
    yield* sendRecord(connection, "certificate", chain)
    yield* receiveRecord(connection, "finished")
  })

const clientHandshake = (connection: Connection, trust: Tls.Trust): Step =>
  Effect.gen(function* () {
    yield* sendRecord(connection, "hello")
    yield* verify(connection, trust, yield* receiveRecord(connection, "certificate"))
    yield* sendRecord(connection, "finished")
  })

const verify = (connection: Connection, trust: Tls.Trust, chain: string): Effect.Effect<void, Tls.TlsError> =>
  Effect.gen(function* () {
    const peer = connection.remote
    const leaf = SimCertificates.read(chain)
    if (Option.isNone(leaf)) return yield* Tls.handshake(peer, "it sent no certificate")
    const { begins, expires, issuer, names } = leaf.value
    const fingerprint = SimCertificates.fingerprintOf(chain)
    if (trust._tag === "Pinned") {
      if (fingerprint !== trust.fingerprint) return yield* Tls.notPinned(peer, fingerprint, trust.fingerprint)
      return
    }
    if (issuer === undefined) return yield* Tls.untrusted(peer, "DEPTH_ZERO_SELF_SIGNED_CERT")
    if (!trust.authorities.some((text) => text.includes(SimCertificates.authority(issuer)))) {
      return yield* Tls.untrusted(peer, "UNABLE_TO_VERIFY_LEAF_SIGNATURE")
    }
    const now = yield* Clock.currentTimeMillis
    if (now > expires) return yield* Tls.expired(peer, expires)
    if (now < begins) return yield* Tls.early(peer, begins)
    if (!names.includes(trust.name)) return yield* Tls.wrongName(peer, names, trust.name)
  })

// A record begins like one of TLS 1.3, so that other data is recognised.
const header = [0x16, 0x03, 0x03] as const
const kinds = { hello: 1, certificate: 11, finished: 20 } as const
type Kind = keyof typeof kinds

const sendRecord = (connection: Connection, kind: Kind, text = ""): Effect.Effect<void, TransportError> => {
  const body = new TextEncoder().encode(text)
  const bytes = [...header, kinds[kind], body.length >> 8, body.length & 255, ...body]
  return connection.write(Uint8Array.from(bytes))
}

/** Receives a record and returns its text. Puts the bytes after it back. */
const receiveRecord = (connection: Connection, kind: Kind): Effect.Effect<string, Tls.TlsError | TransportError> =>
  Effect.gen(function* () {
    const start = [...header, kinds[kind]]
    let bytes = new Uint8Array()
    for (;;) {
      if (bytes.some((byte, at) => at < start.length && byte !== start[at])) {
        return yield* Tls.handshake(connection.remote, "wrong version number")
      }
      const [high = 0, low = 0] = bytes.subarray(start.length)
      const end = start.length + 2 + high * 256 + low
      if (bytes.length >= start.length + 2 && bytes.length >= end) {
        connection.unread(bytes.subarray(end))
        return new TextDecoder().decode(bytes.subarray(start.length + 2, end))
      }
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return yield* Tls.handshake(connection.remote, "it ended the connection")
      bytes = Uint8Array.from([...bytes, ...chunk.value])
    }
  })
