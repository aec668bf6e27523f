/**
 * How a connection to the tunnel port proves that it belongs there. Both sides prove the key, neither sends it, and a
 * stranger gets no byte.
 *
 * ```
 * client                                                                       server
 *   //control?v=1&nonce=<C>&mac=#hello        ──▶ receive      key known, or closed
 *                             accept ◀──      //control?nonce=<S>&s=0&mac=#welcome
 *   //control?who=<process>&s=0&mac=#ready    ──▶ challenge    nonces answered, or closed
 *                             accept ◀──      np://<max>/<flow>?s=1&mac=#<tls>     ─ grant
 *                                         or  //control?got=<n>&proof=&s=1&mac=#resumed ─ resume
 *                                         or  //control?s=1&mac=#busy              ─ decline
 *
 *   //pool?session=<id>&n=<count>&mac=#join   ──▶ receive, joined
 *        with TLS: its handshake, then in it
 *   //pool?session=<id>&n=<count>&mac=#enter  ──▶ secured
 *                              enter ◀──      //<connection id>?n=<count>&mac=#admit  ─ admit
 * ```
 *
 * The line inside shows that whoever ends the TLS connection is the client itself: nobody in between knows its seal.
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

const sentences = {
  NoAnswer: "closed the connection unanswered: the keys differ, or it is not a nodepass-effect server",
  WrongKey: "does not know the key",
  Malformed: "sent something that is not a handshake",
  Version: "speaks a version of the protocol that is not spoken here",
  TimedOut: "did not complete the handshake in time",
  Busy: "serves another client, which is alive; it is asked again until that one leaves",
  Ended: "left during the handshake",
  UnknownSession: "offered a pool connection for a session that is over",
  Downgrade: "secures data connections less than tls= demands here"
} as const

/** The peer did not prove that it belongs here. */
export class HandshakeError extends Schema.TaggedError<HandshakeError>()("HandshakeError", {
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
}) {
  override get message(): string {
    return `${String(this.peer)} ${sentences[this.reason]}`
  }
}

/** Bytes in a line of the handshake, at most: all that a stranger can make us hold. */
export const lineLimit = 512

/** One of each side, fresh in each handshake: 32 hex digits. Session keys are derived from both. */
export interface Nonces {
  readonly client: string
  readonly server: string
}

/** A control connection on which both sides have proved themselves, for a new session or the one before. */
export type Agreement = {
  readonly keys: Key.SessionKeys
  readonly nonces: Nonces
  readonly dialect: Dialect.Dialect
} & (
  | { readonly _tag: "New"; readonly terms: Signal.Terms }
  /** `received` is the highest number of this side's signals that the other one has handled. */
  | { readonly _tag: "Resumed"; readonly received: number }
)

/** The session that a client would go on with. */
export interface Resumable {
  readonly keys: Key.SessionKeys
  /** The highest number of the other side's signals that this one has handled, `-1` for none. */
  readonly received: number
}

/** A newcomer whose first line is one of ours. A `Hello` knows the key; a `Join` is yet to be looked at by its session. */
export type Newcomer =
  | { readonly _tag: "Hello"; readonly nonce: string; readonly key: Key.Stretched }
  | { readonly _tag: "Join"; readonly session: string; readonly line: string }

/**
 * Server: reads a newcomer's first line, and finds which of the keys in force then it was sealed by. Fails with
 * `WrongKey`, `Malformed`, `Version`, `TimedOut` or `Ended`.
 */
export const receive = (
  connection: Connection,
  keys: Effect.Effect<ReadonlyArray<Key.Stretched>>
): Effect.Effect<Newcomer, HandshakeError, Crypto | Deadlines | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const line = yield* readLine(connection, "Ended")
    const session = join.exec(line)?.[1]
    if (session !== undefined) return { _tag: "Join", session, line } as const
    if (!line.startsWith("//control?")) return yield* refuse("Malformed", connection)
    // Each is tried, whichever fits: the time says nothing of which it was.
    const opened = (yield* keys).map((key) => Option.map(Key.hello(crypto, key).open(line), (text) => ({ key, text })))
    const { key, text } = yield* Option.match(Option.firstSomeOf(opened), {
      onNone: () => refuse("WrongKey", connection),
      onSome: Effect.succeed
    })
    const nonce = hello.exec(text)?.[1]
    return nonce === undefined ? yield* refuse("Version", connection) : ({ _tag: "Hello", nonce, key } as const)
  }).pipe(inTime(connection))

/** A client that proved itself, waiting to be told whether it may have the tunnel. */
export interface Candidate {
  /** Names the client's process: 16 hex digits, new at each start of a client. */
  readonly client: string
  /** The tunnel key that it knows. */
  readonly key: Key.Stretched
  /** Keys of the control connection, and of the session if it becomes a new one. */
  readonly keys: Key.SessionKeys
  /** What the keys come from, besides the tunnel key. */
  readonly nonces: Nonces
  readonly channel: Dialect.Channel
  readonly dialect: Dialect.Dialect
  /** The session it would go on with, and what is said to prove that it was in it. */
  readonly resume: Option.Option<{ readonly session: string; readonly received: number; readonly proof: string }>
}

/** Server: answers a `Hello` and has the client prove itself. Fails with `WrongKey`, `Malformed`, `TimedOut` or `Ended`. */
export const challenge = (
  connection: Connection,
  { key, ...newcomer }: Extract<Newcomer, { _tag: "Hello" }>
): Effect.Effect<Candidate, HandshakeError, Crypto | Deadlines | Deflate | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const nonce = yield* Key.nonce
    const nonces = { client: newcomer.nonce, server: nonce }
    const keys = Key.session(crypto, key, nonces)
    const channel = Dialect.makeChannel({ outgoing: keys.server, incoming: keys.client })
    yield* writeLine(connection, channel.seal(`//control?nonce=${nonce}${offer(codec)}#welcome`))
    const text = yield* openedBy(channel, yield* readLine(connection, "Ended"), connection)
    const client = ready.exec(text)?.[1] ?? (yield* refuse("Malformed", connection))
    const [, session, received, proof] = resuming.exec(text) ?? []
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

/** Server: tells the candidate that another client has the tunnel. */
export const decline = (connection: Connection, { channel }: Candidate): Effect.Effect<void> =>
  Effect.ignore(Effect.zipRight(writeLine(connection, channel.seal("//control#busy")), connection.end))

/** Server: begins a session with the candidate, under these terms. */
export const grant = (
  connection: Connection,
  { channel }: Candidate,
  terms: Signal.Terms
): Effect.Effect<void, HandshakeError> => writeLine(connection, channel.seal(Signal.toText(terms)))

/** Server: whether the candidate has proved that it was in this session. */
export const isOf = ({ keys, resume }: Candidate, session: Key.SessionKeys): boolean =>
  Option.exists(
    resume,
    (claim) =>
      claim.session === session.id &&
      Option.isSome(session.join(0).open(Signal.withParameter(proofText(session, keys, "resume"), "mac", claim.proof)))
  )

/** Server: goes on with the session before. `received` is the highest number of the client's signals that it has handled. */
export const resume = (
  connection: Connection,
  { channel, keys }: Candidate,
  session: Resumable
): Effect.Effect<void, HandshakeError> => {
  const proof = proofOf(session.keys.admit(0), proofText(session.keys, keys, "resumed"))
  return writeLine(connection, channel.seal(`//control?got=${session.received + 1}&proof=${proof}#resumed`))
}

/**
 * Client: proves itself on a fresh control connection, and either goes on with the session before, where the server still
 * has it, or takes the server's terms for a new one.
 *
 * `tls` is the weakest mode that the terms may have. Fails with `NoAnswer`, `WrongKey` (an impostor
 * answers), `Busy`, `Downgrade`, `Version`, `Malformed` or `TimedOut`.
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
    const server = welcome.exec(line)?.[1]
    if (server === undefined) return yield* refuse("Malformed", connection)
    const nonces = { client: nonce, server }
    const keys = Key.session(crypto, options.key, nonces)
    const channel = Dialect.makeChannel({ outgoing: keys.client, incoming: keys.server })
    const offered = yield* openedBy(channel, line, connection)
    const before = options.resume
    const claim = before === undefined ? "" : claimText(before, keys)
    yield* writeLine(connection, channel.seal(`//control?who=${options.client}${claim}${offer(codec)}#ready`))
    const answer = yield* openedBy(channel, yield* readLine(connection, "Ended"), connection)
    const dialect = Dialect.native(channel, { codec: agreed(codec, offered) })
    if (answer.endsWith("#busy")) return yield* refuse("Busy", connection)
    if (before !== undefined && answer.endsWith("#resumed")) {
      const [, received, proof = ""] = resumed.exec(answer) ?? []
      const text = Signal.withParameter(proofText(before.keys, keys, "resumed"), "mac", proof)
      if (received === undefined || Option.isNone(before.keys.admit(0).open(text))) {
        return yield* refuse("Malformed", connection)
      }
      return { _tag: "Resumed", keys, nonces, dialect, received: Number(received) - 1 } as const
    }
    const terms = yield* Effect.mapError(decodeTerms(answer), () => malformed(connection))
    if (TlsMode.isWeaker(terms.tls, options.tls)) return yield* refuse("Downgrade", connection)
    return { _tag: "New", terms, keys, nonces, dialect } as const
  }).pipe(
    inTime(connection),
    rootSpan("Handshake.accept", () => ({ peer: String(connection.remote) }))
  )

/** A pool connection that its session has taken in. */
export interface Entered {
  readonly id: Signal.ConnectionId
  /** Stands in for the connection it came on: over TLS it is another one. */
  readonly connection: Connection
}

/**
 * Client: proves on a fresh pool connection that it belongs to the session, and learns its id.
 *
 * `count` is different for each pool connection of a session; `trust` is what the server's certificate is held to, where
 * there is one. Fails with `NoAnswer`, `WrongKey`, `Malformed` or `TimedOut`, and as `Transport.secure` does.
 */
export const enter = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly trust: Option.Option<Trust> }
): Effect.Effect<Entered, HandshakeError | TlsError | TransportError, Deadlines | Settings | Transport> =>
  Effect.gen(function* () {
    const { count, keys, trust } = options
    const say = (to: Connection, kind: "join" | "enter") =>
      writeLine(to, keys.join(count).seal(`//pool?session=${keys.id}&n=${count}#${kind}`))
    yield* say(connection, "join")
    const inner = Option.isNone(trust)
      ? connection
      : yield* Effect.flatMap(Transport, ({ secure }) => secure(connection, { side: "client", trust: trust.value }))
    if (Option.isSome(trust)) yield* say(inner, "enter")
    const text = yield* sealedBy(keys.admit(count), yield* readLine(inner, "NoAnswer"), inner)
    const [, id, echoed] = admitted.exec(text) ?? []
    return Number(echoed) === count && Signal.isConnectionId(id)
      ? { id, connection: inner }
      : yield* refuse("Malformed", inner)
  }).pipe(inTime(connection))

/** Server: the count of a `Join` that the session's client sealed. Fails with `WrongKey` or `Malformed`. */
export const joined = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly line: string }
): Effect.Effect<number, HandshakeError> =>
  Effect.suspend(() => {
    // Which key it is depends on the count, so this is looked at first; nothing comes of it unless the seal fits.
    const count = Number(joinCount.exec(options.line)?.[1] ?? Number.NaN)
    return Number.isSafeInteger(count)
      ? Effect.as(sealedBy(options.keys.join(count), options.line, connection), count)
      : refuse("Malformed", connection)
  })

/**
 * Server: TLS over a pool connection that was `joined`; fails with `WrongKey` or `Malformed` when it does not end at the
 * session's client, with `TimedOut` or `Ended`, and as `Transport.secure` does.
 */
export const secured = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly certificate: Certificate }
): Effect.Effect<Connection, HandshakeError | TlsError | TransportError, Deadlines | Settings | Transport> =>
  Effect.gen(function* () {
    const { certificate, count, keys } = options
    const { secure } = yield* Transport
    const inner = yield* secure(connection, { side: "server", certificate })
    const text = yield* sealedBy(keys.join(count), yield* readLine(inner, "Ended"), inner)
    return Number(enterCount.exec(text)?.[1]) === count ? inner : yield* refuse("Malformed", inner)
  }).pipe(inTime(connection))

/** Server: gives a pool connection its id. */
export const admit = (
  connection: Connection,
  options: { readonly keys: Key.SessionKeys; readonly count: number; readonly id: Signal.ConnectionId }
): Effect.Effect<void, HandshakeError> =>
  writeLine(connection, options.keys.admit(options.count).seal(`//${options.id}?n=${options.count}#admit`))

// internal

const hello = /^\/\/control\?v=1&nonce=([0-9a-f]{32})(?:&[^#]*)?#hello$/
const welcome = /^\/\/control\?nonce=([0-9a-f]{32})&[^#]*#welcome$/
const ready = /^\/\/control\?who=([0-9a-f]{16})&[^#]*#ready$/
const resuming = /[?&]session=([0-9a-f]{16})&got=(\d{1,15})&proof=([0-9a-f]{32})[&#]/
const resumed = /^\/\/control\?got=(\d{1,15})&proof=([0-9a-f]{32})(?:&[^#]*)?#resumed$/
const join = /^\/\/pool\?session=([0-9a-f]{16})&[^#]*#join$/
const joinCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#join$/
const enterCount = /^\/\/pool\?session=[0-9a-f]{16}&n=(\d{1,15})(?:&[^#]*)?#enter$/
const admitted = /^\/\/([0-9a-f]{8})\?n=(\d{1,15})(?:&[^#]*)?#admit$/

/** What the peer could be sent compressed. */
const offer = (codec: Option.Option<Codec>): string => (Option.isSome(codec) ? "&z=1" : "")

const agreed = (codec: Option.Option<Codec>, text: string): Option.Option<Codec> =>
  Option.filter(codec, () => Signal.parameter(text, "z") === "1")

/** Says of whom it seals that it is in the session, and was there when these keys were agreed on. */
const proofText = (session: Key.SessionKeys, keys: Key.SessionKeys, kind: "resume" | "resumed"): string =>
  `//control?session=${session.id}&with=${keys.id}#${kind}`

const proofOf = (seal: Key.Seal, text: string): string => Signal.parameter(seal.seal(text), "mac") ?? ""

const claimText = ({ keys: before, received }: Resumable, keys: Key.SessionKeys): string =>
  `&session=${before.id}&got=${received + 1}&proof=${proofOf(before.join(0), proofText(before, keys, "resume"))}`

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

/** Reads one line and leaves what follows it on the connection. `gone` names what an early end means to this reader. */
const readLine = (connection: Connection, gone: "Ended" | "NoAnswer"): Effect.Effect<string, HandshakeError> => {
  const from = (held: Uint8Array): Effect.Effect<string, HandshakeError> =>
    Effect.flatMap(
      Effect.mapError(connection.read, () => new HandshakeError({ reason: gone, peer: connection.remote })),
      (chunk) => {
        if (Option.isNone(chunk)) return refuse(gone, connection)
        const data = held.length === 0 ? chunk.value : Frame.concat([held, chunk.value])
        const cut = Frame.split(data)
        if ((cut?.[0] ?? data).length > lineLimit) return refuse("Malformed", connection)
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

/** What is late is reset, which ends every wait on it. */
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
        const settle = after(handshakeTimeout, expire)
        // Who is interrupted drops the connection, and the reset harms nobody.
        return Effect.matchEffect(self, {
          onFailure: (error) => {
            settle()
            return Effect.fail(late ? new HandshakeError({ reason: "TimedOut", peer: remote }) : error)
          },
          onSuccess: (value) => {
            settle()
            return Effect.succeed(value)
          }
        })
      })
    )
