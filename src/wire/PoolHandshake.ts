/**
 * Authenticates pool connections: each proves that it belongs to the session, by an HMAC with a key that only the two sides of
 * the session have. No Diffie-Hellman, so that a pool of a thousand connections costs little.
 *
 * ```
 * client                                                                       server
 *   //pool?session=<id>&n=<count>&mac=#join   ──▶ FirstMessage.receive, checkJoin
 *        with TLS: the TLS handshake, and inside it
 *   //pool?session=<id>&n=<count>&mac=#enter  ──▶ secureJoined
 *                              enter ◀──      //<connection id>?n=<count>&mac=#admit  ─ admit
 * ```
 *
 * The line inside TLS proves that the TLS connection ends at the client: a man in the middle cannot seal it.
 *
 * Source: docs/protocol.md §Pool connections.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Deadlines } from "../core/Deadlines.js"
import type { Certificate } from "../transport/Certificates.js"
import type { Settings } from "../transport/Settings.js"
import type { TlsError, Trust } from "../transport/Tls.js"
import { type Connection, Transport, type TransportError } from "../transport/Transport.js"
import { type HandshakeError, refuse } from "./HandshakeError.js"
import { inTime, readLine, writeLine } from "./HandshakeStep.js"
import type * as Key from "./Key.js"
import * as Signal from "./Signal.js"

/** A pool connection that the server has admitted to the session. */
export interface Entered {
  readonly id: Signal.ConnectionId
  /** Use it in place of the given connection: over TLS it is another object. */
  readonly connection: Connection
}

/**
 * Client: authenticates a new pool connection for the session, and receives its id.
 *
 * Use each `count` once in a session. `trust` says which certificate of the server to accept; `None` is no TLS. Fails with
 * `NoAnswer`, `WrongKey`, `Malformed` or `TimedOut`, and like `Transport.secure`.
 */
export const enter = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly trust: Option.Option<Trust> }
): Effect.Effect<Entered, HandshakeError | TlsError | TransportError, Deadlines | Settings | Transport> =>
  Effect.gen(function* () {
    const { count, keys, trust } = options
    const send = (to: Connection, kind: "join" | "enter") =>
      writeLine(to, keys.join(count).seal(`//pool?session=${keys.id}&n=${count}#${kind}`))
    yield* send(connection, "join")
    const inner = Option.isNone(trust)
      ? connection
      : yield* Effect.flatMap(Transport, ({ secure }) => secure(connection, { side: "client", trust: trust.value }))
    if (Option.isSome(trust)) yield* send(inner, "enter")
    const text = yield* sealedBy(keys.admit(count), yield* readLine(inner, "NoAnswer"), inner)
    const [, id, echoed] = admitLine.exec(text) ?? []
    return Number(echoed) === count && Signal.isConnectionId(id)
      ? { id, connection: inner }
      : yield* refuse("Malformed", inner)
  }).pipe(inTime(connection))

/** Server: verifies the seal of a `Join`, and returns its count. Fails with `WrongKey` or `Malformed`. */
export const checkJoin = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly line: string }
): Effect.Effect<number, HandshakeError> =>
  Effect.suspend(() => {
    // The key depends on the count, so the count is read first. It is not used unless the seal fits.
    const count = Number(joinLineCount.exec(options.line)?.[1] ?? Number.NaN)
    return Number.isSafeInteger(count)
      ? Effect.as(sealedBy(options.keys.join(count), options.line, connection), count)
      : refuse("Malformed", connection)
  })

/**
 * Server: starts TLS on a pool connection whose `Join` was verified. Fails with `WrongKey` or `Malformed` when TLS does not end
 * at the session's client, with `TimedOut` or `Ended`, and like `Transport.secure`.
 */
export const secureJoined = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly certificate: Certificate }
): Effect.Effect<Connection, HandshakeError | TlsError | TransportError, Deadlines | Settings | Transport> =>
  Effect.gen(function* () {
    const { certificate, count, keys } = options
    const { secure } = yield* Transport
    const inner = yield* secure(connection, { side: "server", certificate })
    const text = yield* sealedBy(keys.join(count), yield* readLine(inner, "Ended"), inner)
    return Number(enterLineCount.exec(text)?.[1]) === count ? inner : yield* refuse("Malformed", inner)
  }).pipe(inTime(connection))

/** Server: admits a pool connection to the session, and sends its id. */
export const admit = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly id: Signal.ConnectionId }
): Effect.Effect<void, HandshakeError> =>
  writeLine(connection, options.keys.admit(options.count).seal(`//${options.id}?n=${options.count}#admit`))

// internal

const joinLineCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#join$/
const enterLineCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#enter$/
const admitLine = /^\/\/([0-9a-f]{8})\?n=(\d{1,15})(?:&[^#]*)?#admit$/

const sealedBy = (seal: Key.Seal, line: string, connection: Connection): Effect.Effect<string, HandshakeError> =>
  Option.match(seal.open(line), { onNone: () => refuse("WrongKey", connection), onSome: Effect.succeed })
