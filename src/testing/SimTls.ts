/**
 * `Transport.secure` in a simulation: the round trips, the refusals and the words of TLS 1.3, and no secrecy.
 *
 * Three records pass, as in life: the client says hello, the server shows its certificate, the client has finished.
 * What follows passes as it is.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as SimCertificates from "./SimCertificates.js"
import * as Tls from "../transport/Tls.js"
import type { Connection, Transport, TransportError } from "../transport/Transport.js"

/** See `Transport`. */
export const secure: Transport["Type"]["secure"] = (connection, as) =>
  (as.side === "server" ? serve(connection, as.certificate.chain) : visit(connection, as.trust)).pipe(
    Effect.as(connection),
    Effect.onError(() => connection.reset)
  )

// internal

type Step = Effect.Effect<void, Tls.TlsError | TransportError>

const serve = (connection: Connection, chain: string): Step =>
  Effect.gen(function* () {
    yield* hear(connection, "hello")
    yield* say(connection, "certificate", chain)
    yield* hear(connection, "finished")
  })

const visit = (connection: Connection, trust: Tls.Trust): Step =>
  Effect.gen(function* () {
    yield* say(connection, "hello")
    yield* verify(connection, trust, yield* hear(connection, "certificate"))
    yield* say(connection, "finished")
  })

const verify = (connection: Connection, trust: Tls.Trust, chain: string): Effect.Effect<void, Tls.TlsError> =>
  Effect.gen(function* () {
    const peer = connection.remote
    const leaf = SimCertificates.read(chain)
    if (Option.isNone(leaf)) return yield* Tls.handshake(peer, "it showed no certificate")
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

// A record begins as one of TLS 1.3 does, and so is told from what is none.
const header = [0x16, 0x03, 0x03] as const
const kinds = { hello: 1, certificate: 11, finished: 20 } as const
type Kind = keyof typeof kinds

const say = (connection: Connection, kind: Kind, text = ""): Effect.Effect<void, TransportError> => {
  const body = new TextEncoder().encode(text)
  const bytes = [...header, kinds[kind], body.length >> 8, body.length & 255, ...body]
  return connection.write(Uint8Array.from(bytes))
}

/** The text of the next record; what came behind it is put back. */
const hear = (connection: Connection, kind: Kind): Effect.Effect<string, Tls.TlsError | TransportError> =>
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
