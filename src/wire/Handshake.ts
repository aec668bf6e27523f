/**
 * Authenticates connections to the tunnel port. Both sides prove that they know the key, neither sends it, and an
 * unauthenticated peer receives no byte.
 *
 * ```
 * client                                                                       server
 *   //control?v=1&nonce=<C>&mac=#hello        ──▶ receive      key is known, or close
 *                             accept ◀──      //control?nonce=<S>&s=0&mac=#welcome
 *   //control?who=<process>&s=0&mac=#ready    ──▶ challenge    nonces match, or close
 *                             accept ◀──      np://<max>/<flow>?s=1&mac=#<tls>     ─ grant
 *                                         or  //control?got=<n>&proof=&s=1&mac=#resumed ─ resume
 *                                         or  //control?s=1&mac=#busy              ─ decline
 *
 *   //pool?session=<id>&n=<count>&mac=#join   ──▶ receive, checkJoin
 *        with TLS: the TLS handshake, and inside it
 *   //pool?session=<id>&n=<count>&mac=#enter  ──▶ secureJoined
 *                              enter ◀──      //<connection id>?n=<count>&mac=#admit  ─ admit
 * ```
 *
 * The line inside TLS proves that the TLS connection ends at the client: a relay in between cannot seal it.
 *
 * Source: docs/protocol.md §Handshake.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Address } from "../core/Address.js"
import type { Certificate } from "../transport/Certificates.js"
import { Crypto } from "../transport/Crypto.js"
import { Deadlines } from "../core/Deadlines.js"
import { rootSpan } from "../core/RootSpan.js"
import { type Codec, Deflate } from "./Deflate.js"
import * as Dialect from "./Dialect.js"
import * as Frame from "./Frame.js"
import * as Key from "./Key.js"
import { Settings } from "../transport/Settings.js"
import * as Signal from "./Signal.js"
import * as TlsMode from "../core/TlsMode.js"
import type { TlsError, Trust } from "../transport/Tls.js"
import { type Connection, Transport, type TransportError } from "../transport/Transport.js"
import { withoutStack } from "../core/WithoutStack.js"

const sentences = {
  NoAnswer: "closed the connection without an answer: the keys differ, or it is not a nodepass-effect server",
  WrongKey: "does not know the key",
  Malformed: "sent data that is not a handshake",
  Version: "uses a version of the protocol that is not supported here",
  TimedOut: "did not complete the handshake in time",
  Busy: "serves another client; trying again until that client disconnects",
  Ended: "closed the connection during the handshake",
  UnknownSession: "offered a pool connection for a session that is over",
  Downgrade: "offers weaker TLS for pool connections than tls= requires here"
} as const

/** The handshake with this peer failed. */
export class HandshakeError extends withoutStack(
  Schema.TaggedError<HandshakeError>()("HandshakeError", {
    reason: Schema.Literal(
      "NoAnswer",
      "WrongKey",
      "Malformed",
      "Version",
      "TimedOut",
      "Busy",
      "Ended",
      "UnknownSession",
      "Downgrade"
    ),
    peer: Address
  })
) {
  override get message(): string {
    return `${String(this.peer)} ${sentences[this.reason]}`
  }
}

/** Bytes in a line of the handshake, at most. An unauthenticated peer can make this side hold no more. */
export const maxLineBytes = 512

/** One of each side, fresh in each handshake: 32 hex digits. Session keys are derived from both. */
export interface Nonces {
  readonly client: string
  readonly server: string
}

/** The result of a handshake: keys and dialect of the control connection, for a new session or a resumed one. */
export type Agreement = {
  readonly keys: Key.SessionKeys
  readonly nonces: Nonces
  readonly dialect: Dialect.Dialect
} & (
  | { readonly _tag: "New"; readonly terms: Signal.Terms }
  /** `received` is the highest number of this side's signals that the other side has handled. */
  | { readonly _tag: "Resumed"; readonly received: number }
)

/** The session that a client requests to resume. */
export interface Resumable {
  readonly keys: Key.SessionKeys
  /** The highest number of the other side's signals that this side has handled, `-1` for none. */
  readonly received: number
}

/** The first line of a connection. The sender of a `Hello` knows the tunnel key; a `Join` is not verified yet. */
export type FirstLine =
  | { readonly _tag: "Hello"; readonly nonce: string; readonly key: Key.Stretched }
  | { readonly _tag: "Join"; readonly session: string; readonly line: string }

/**
 * Server: reads the first line of a connection, and finds out which of the current keys sealed it. Fails with `WrongKey`,
 * `Malformed`, `Version`, `TimedOut` or `Ended`.
 */
export const receive = (
  connection: Connection,
  keys: Effect.Effect<ReadonlyArray<Key.Stretched>>
): Effect.Effect<FirstLine, HandshakeError, Crypto | Deadlines | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const line = yield* readLine(connection, "Ended")
    const session = joinLine.exec(line)?.[1]
    if (session !== undefined) return { _tag: "Join", session, line } as const
    if (!line.startsWith("//control?")) return yield* refuse("Malformed", connection)
    // Every key is tried even after one fits, so that the time does not reveal which one it was.
    const opened = (yield* keys).map((key) => Option.map(Key.hello(crypto, key).open(line), (text) => ({ key, text })))
    const { key, text } = yield* Option.match(Option.firstSomeOf(opened), {
      onNone: () => refuse("WrongKey", connection),
      onSome: Effect.succeed
    })
    const nonce = helloLine.exec(text)?.[1]
    return nonce === undefined ? yield* refuse("Version", connection) : ({ _tag: "Hello", nonce, key } as const)
  }).pipe(inTime(connection))

/** An authenticated client that waits for the server's decision. */
export interface Candidate {
  /** Names the client's process: 16 hex digits, new at each start of a client. */
  readonly client: string
  /** The tunnel key that it used. */
  readonly key: Key.Stretched
  /** The keys of the control connection, and of the session if the server grants a new one. */
  readonly keys: Key.SessionKeys
  /** The nonces from which the keys are derived, together with the tunnel key. */
  readonly nonces: Nonces
  readonly channel: Dialect.Channel
  readonly dialect: Dialect.Dialect
  /** The session that it requests to resume, with a proof that it holds the keys of that session. */
  readonly resume: Option.Option<{ readonly session: string; readonly received: number; readonly proof: string }>
}

/** Server: answers a `Hello` and authenticates the client. Fails with `WrongKey`, `Malformed`, `TimedOut` or `Ended`. */
export const challenge = (
  connection: Connection,
  { key, ...hello }: Extract<FirstLine, { _tag: "Hello" }>
): Effect.Effect<Candidate, HandshakeError, Crypto | Deadlines | Deflate | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const nonce = yield* Key.nonce
    const nonces = { client: hello.nonce, server: nonce }
    const keys = Key.session(crypto, key, nonces)
    const channel = Dialect.makeChannel({ outgoing: keys.server, incoming: keys.client })
    yield* writeLine(connection, channel.seal(`//control?nonce=${nonce}${offer(codec)}#welcome`))
    const text = yield* openedBy(channel, yield* readLine(connection, "Ended"), connection)
    const client = readyLine.exec(text)?.[1] ?? (yield* refuse("Malformed", connection))
    const [, session, received, proof] = resumeClaim.exec(text) ?? []
    const resume =
      session === undefined || proof === undefined
        ? Option.none()
        : Option.some({ session, received: Number(received) - 1, proof })
    const dialect = Dialect.native(channel, { codec: agreed(codec, text) })
    return { client, key, keys, nonces, channel, dialect, resume }
  }).pipe(
    inTime(connection),
    rootSpan("Handshake.challenge", () => ({ peer: String(connection.remote) }))
  )

/** Server: refuses the candidate because another client uses the tunnel. */
export const decline = (connection: Connection, { channel }: Candidate): Effect.Effect<void> =>
  Effect.ignore(Effect.zipRight(writeLine(connection, channel.seal("//control#busy")), connection.end))

/** Server: starts a new session with the candidate, on these terms. */
export const grant = (
  connection: Connection,
  { channel }: Candidate,
  terms: Signal.Terms
): Effect.Effect<void, HandshakeError> => writeLine(connection, channel.seal(Signal.toText(terms)))

/** Server: whether the candidate has proved that it holds the keys of this session. */
export const belongsTo = ({ keys, resume }: Candidate, session: Key.SessionKeys): boolean =>
  Option.exists(
    resume,
    (claim) =>
      claim.session === session.id &&
      Option.isSome(session.join(0).open(Signal.withParameter(proofText(session, keys, "resume"), "mac", claim.proof)))
  )

/** Server: resumes the session with the candidate. */
export const resume = (
  connection: Connection,
  { channel, keys }: Candidate,
  session: Resumable
): Effect.Effect<void, HandshakeError> => {
  const proof = proofOf(session.keys.admit(0), proofText(session.keys, keys, "resumed"))
  return writeLine(connection, channel.seal(`//control?got=${session.received + 1}&proof=${proof}#resumed`))
}

/**
 * Client: authenticates on a new control connection. It resumes the previous session if the server still has it, and
 * otherwise accepts the server's terms for a new session.
 *
 * `tls` is the weakest mode that the client accepts. Fails with `NoAnswer`, `WrongKey` (the server does not know the key),
 * `Busy`, `Downgrade`, `Version`, `Malformed` or `TimedOut`.
 */
export const accept = (
  connection: Connection,
  options: {
    readonly key: Key.Stretched
    readonly client: string
    readonly tls: TlsMode.TlsMode
    readonly resume?: Resumable | undefined
  }
): Effect.Effect<Agreement, HandshakeError, Crypto | Deadlines | Deflate | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const nonce = yield* Key.nonce
    yield* writeLine(connection, Key.hello(crypto, options.key).seal(`//control?v=1&nonce=${nonce}#hello`))
    const line = yield* readLine(connection, "NoAnswer")
    const server = welcomeLine.exec(line)?.[1]
    if (server === undefined) return yield* refuse("Malformed", connection)
    const nonces = { client: nonce, server }
    const keys = Key.session(crypto, options.key, nonces)
    const channel = Dialect.makeChannel({ outgoing: keys.client, incoming: keys.server })
    const offered = yield* openedBy(channel, line, connection)
    const previous = options.resume
    const claim = previous === undefined ? "" : claimText(previous, keys)
    yield* writeLine(connection, channel.seal(`//control?who=${options.client}${claim}${offer(codec)}#ready`))
    const answer = yield* openedBy(channel, yield* readLine(connection, "Ended"), connection)
    const dialect = Dialect.native(channel, { codec: agreed(codec, offered) })
    if (answer.endsWith("#busy")) return yield* refuse("Busy", connection)
    if (previous !== undefined && answer.endsWith("#resumed")) {
      const [, received, proof = ""] = resumedLine.exec(answer) ?? []
      const text = Signal.withParameter(proofText(previous.keys, keys, "resumed"), "mac", proof)
      if (received === undefined || Option.isNone(previous.keys.admit(0).open(text))) {
        return yield* refuse("Malformed", connection)
      }
      return { _tag: "Resumed", keys, nonces, dialect, received: Number(received) - 1 } as const
    }
    const terms = yield* Effect.mapError(decodeTerms(answer), () => malformed(connection))
    if (TlsMode.isWeaker(terms.tls, options.tls)) return yield* refuse("Downgrade", connection)
    return { _tag: "New", terms, keys, nonces, dialect } as const
  }).pipe(inTime(connection))

/** A pool connection that the server has admitted to the session. */
export interface Entered {
  readonly id: Signal.ConnectionId
  /** Use it in place of the given connection: over TLS it is another object. */
  readonly connection: Connection
}

/**
 * Client: authenticates a new pool connection for the session, and receives its id.
 *
 * Use each `count` once in a session. `trust` selects the certificate of the server that is accepted; `None` is no TLS. Fails with
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

const helloLine = /^\/\/control\?v=1&nonce=([0-9a-f]{32})(?:&[^#]*)?#hello$/
const welcomeLine = /^\/\/control\?nonce=([0-9a-f]{32})&[^#]*#welcome$/
const readyLine = /^\/\/control\?who=([0-9a-f]{16})&[^#]*#ready$/
const resumeClaim = /[?&]session=([0-9a-f]{16})&got=(\d{1,15})&proof=([0-9a-f]{32})[&#]/
const resumedLine = /^\/\/control\?got=(\d{1,15})&proof=([0-9a-f]{32})(?:&[^#]*)?#resumed$/
const joinLine = /^\/\/pool\?session=([0-9a-f]{16})&[^#]*#join$/
const joinLineCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#join$/
const enterLineCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#enter$/
const admitLine = /^\/\/([0-9a-f]{8})\?n=(\d{1,15})(?:&[^#]*)?#admit$/

/** Offers to receive deflated lines. */
const offer = (codec: Option.Option<Codec>): string => (Option.isSome(codec) ? "&z=1" : "")

const agreed = (codec: Option.Option<Codec>, text: string): Option.Option<Codec> =>
  Option.filter(codec, () => Signal.parameter(text, "z") === "1")

/** The text whose seal proves that a side holds the keys of both the session and this control connection. */
const proofText = (session: Key.SessionKeys, keys: Key.SessionKeys, kind: "resume" | "resumed"): string =>
  `//control?session=${session.id}&with=${keys.id}#${kind}`

const proofOf = (seal: Key.Seal, text: string): string => Signal.parameter(seal.seal(text), "mac") ?? ""

const claimText = ({ keys: previous, received }: Resumable, keys: Key.SessionKeys): string =>
  `&session=${previous.id}&got=${received + 1}&proof=${proofOf(previous.join(0), proofText(previous, keys, "resume"))}`

const decodeTerms = (text: string) =>
  Effect.flatMap(Signal.fromText(text), (signal) =>
    signal._tag === "Terms" ? Effect.succeed(signal) : Effect.fail(signal)
  )

const malformed = ({ remote }: Connection) => new HandshakeError({ reason: "Malformed", peer: remote })

const refuse = (reason: HandshakeError["reason"], { remote }: Connection): Effect.Effect<never, HandshakeError> =>
  Effect.fail(new HandshakeError({ reason, peer: remote }))

const sealedBy = (seal: Key.Seal, line: string, connection: Connection): Effect.Effect<string, HandshakeError> =>
  Option.match(seal.open(line), { onNone: () => refuse("WrongKey", connection), onSome: Effect.succeed })

const openedBy = (
  channel: Dialect.Channel,
  line: string,
  connection: Connection
): Effect.Effect<string, HandshakeError> =>
  Either.match(channel.open(line), {
    onLeft: ({ reason }) => refuse(reason === "Seal" ? "WrongKey" : "Malformed", connection),
    onRight: Effect.succeed
  })

/** Reads one line, and puts the bytes after it back. Fails with `onEnd` when the connection ends before the line does. */
const readLine = (connection: Connection, onEnd: "Ended" | "NoAnswer"): Effect.Effect<string, HandshakeError> => {
  const from = (partial: Uint8Array): Effect.Effect<string, HandshakeError> =>
    Effect.flatMap(
      Effect.mapError(connection.read, () => new HandshakeError({ reason: onEnd, peer: connection.remote })),
      (chunk) => {
        if (Option.isNone(chunk)) return refuse(onEnd, connection)
        const data = partial.length === 0 ? chunk.value : Frame.concat([partial, chunk.value])
        const cut = Frame.split(data)
        if ((cut?.[0] ?? data).length > maxLineBytes) return refuse("Malformed", connection)
        if (cut === undefined) return from(data)
        const [line, rest] = cut
        if (rest.length > 0) connection.unread(rest)
        return Effect.succeed(Frame.toText(line))
      }
    )
  return from(new Uint8Array(0))
}

const write = (connection: Connection, bytes: Uint8Array): Effect.Effect<void, HandshakeError> =>
  Effect.mapError(
    connection.write(bytes),
    (_: TransportError) => new HandshakeError({ reason: "Ended", peer: connection.remote })
  )

const writeLine = (connection: Connection, line: string): Effect.Effect<void, HandshakeError> =>
  write(connection, Frame.encode([line]))

/** On timeout, resets the connection, which ends every wait on it. */
const inTime =
  ({ remote, reset }: Connection) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | HandshakeError, Deadlines | R | Settings> =>
    Effect.flatMap(Deadlines, ({ after }) =>
      Effect.flatMap(Settings, ({ handshakeTimeout }) => {
        let late = false
        const expire = Effect.suspend(() => {
          late = true
          return reset
        })
        const cancelDeadline = after(handshakeTimeout, expire)
        // After an interruption the deadline stays: its owner closes the connection, and resetting it again does no harm.
        return Effect.matchEffect(self, {
          onFailure: (error) => {
            cancelDeadline()
            return Effect.fail(late ? new HandshakeError({ reason: "TimedOut", peer: remote }) : error)
          },
          onSuccess: (value) => {
            cancelDeadline()
            return Effect.succeed(value)
          }
        })
      })
    )
