/**
 * Authenticates control connections: both sides prove that they know the tunnel key, and agree on keys that no third party has,
 * not even those who learn the tunnel key later.
 *
 * ```
 * client                                                                       server
 *   02 <salt> <Noise 1: //control?at=<time>#hello>  ──▶ FirstMessage.receive   the key is known, or reset
 *                         accept ◀──  <Noise 2: //control?z=1#welcome>
 *   //control?who=<process>#ready                   ──▶ challenge              the client answers now
 *                         accept ◀──  np://<max>/<flow>#<tls>                 ─ grant
 *                                 or  //control?got=<n>&proof=#resumed        ─ resume
 *                                 or  //control#busy                          ─ decline
 * ```
 *
 * From `ready` on, each line is a message of the Noise transport. Source: docs/protocol.md §Handshake.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Deadlines } from "../core/Deadlines.js"
import { rootSpan } from "../core/RootSpan.js"
import * as TlsMode from "../core/TlsMode.js"
import { Crypto } from "../transport/Crypto.js"
import type { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import { type Codec, Deflate } from "./Deflate.js"
import * as Dialect from "./Dialect.js"
import * as FirstMessage from "./FirstMessage.js"
import * as Frame from "./Frame.js"
import { type HandshakeError, make, refuse } from "./HandshakeError.js"
import { inTime, readMessage, writeMessage } from "./HandshakeStep.js"
import * as Key from "./Key.js"
import * as Noise from "./Noise.js"
import * as Signal from "./Signal.js"
import type { Salt, TunnelKey } from "./TunnelKey.js"

/** The result of a handshake: the keys of a session and the dialect of the control connection. */
export type Agreement = {
  readonly keys: Key.SessionKeys
  readonly dialect: Dialect.Dialect
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  /** Names the other side's process, if it says so: 8 hex digits. */
  readonly run: string | undefined
} & (
  | { readonly _tag: "New"; readonly terms: Signal.Terms }
  /**
   * `received` is the highest number of this side's signals that the other side has handled, and `count` the lowest count of
   * a pool connection that it admits, where it says so. `fingerprint`: of its certificate, in place of the one in the terms.
   */
  | {
      readonly _tag: "Resumed"
      readonly received: number
      readonly count: number | undefined
      readonly fingerprint: string | undefined
    }
)

/** The session that a client asks to resume. */
export interface Resumable {
  readonly keys: Key.SessionKeys
  /** The highest number of the other side's signals that this side has handled, `-1` for none. */
  readonly received: number
}

/** The session that a server resumes. */
export interface Resuming extends Resumable {
  /** The lowest count of a pool connection that it admits. Defaults to not saying so: every count that was not used. */
  readonly count?: number | undefined
  /** Of the certificate that replaces the one in the terms, 64 hex digits. Defaults to that one. */
  readonly fingerprint?: string | undefined
}

/** An authenticated client that waits for the server's decision. */
export interface Candidate {
  /** Names the client: 16 hex digits, new at each start of a client that continues no session. */
  readonly client: string
  /** Names its process, if it says so: 8 hex digits. */
  readonly run: string | undefined
  /** The tunnel key that it used. */
  readonly key: TunnelKey
  readonly salt: Salt
  /** The keys of the session if the server grants a new one. */
  readonly keys: Key.SessionKeys
  readonly ciphers: Noise.Ciphers
  readonly dialect: Dialect.Dialect
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  /** The session that it asks to resume, with a proof that it holds the keys of that session. */
  readonly resume: Option.Option<{ readonly session: string; readonly received: number; readonly proof: string }>
}

/** What a side offers beside the handshake itself. */
export interface Offer {
  /** Whether it serves visitors by streams. Defaults to `false`. */
  readonly streams?: boolean | undefined
  /**
   * Names this process, 8 hex digits, so that the other side notices when another process continues a session. Defaults to
   * not saying so.
   */
  readonly run?: string | undefined
}

/** Server: answers a `Hello` and authenticates the client. Fails with `WrongKey`, `Malformed`, `TimedOut` or `Ended`. */
export const challenge = (
  connection: Connection,
  { answer, key, salt }: Extract<FirstMessage.FirstMessage, { _tag: "Hello" }>,
  options?: Offer
): Effect.Effect<Candidate, HandshakeError, Crypto | Deadlines | Deflate | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const offers = offersOf(codec, options)
    const welcome = Frame.fromText(`//control${offers.length === 0 ? "" : `?${offers.join("&")}`}#welcome`)
    const answered = answer(yield* Noise.ephemeral, welcome)
    if (Option.isNone(answered)) return yield* refuse("Malformed", connection)
    const { ciphers, message, secret } = answered.value
    yield* writeMessage(connection, message)
    const text = yield* receiveLine(connection, ciphers)
    const client = readyLine.exec(text)?.[1] ?? (yield* refuse("Malformed", connection))
    const [, session, received, proof] = resumeClaim.exec(text) ?? []
    const resume =
      session === undefined || proof === undefined
        ? Option.none()
        : Option.some({ session, received: Number(received) - 1, proof })
    const dialect = Dialect.native(ciphers, { codec: agreed(codec, text) })
    const streams = agreesOnStreams(options, text)
    return { client, run: runOf(text), key, salt, keys: Key.session(crypto, secret), ciphers, dialect, streams, resume }
  }).pipe(
    inTime(connection),
    rootSpan("Handshake.challenge", () => ({ peer: String(connection.remote) }))
  )

/** Server: refuses the candidate because another client uses the tunnel. */
export const decline = (connection: Connection, { ciphers }: Candidate): Effect.Effect<void> =>
  Effect.ignore(Effect.zipRight(sendLine(connection, ciphers, "//control#busy"), connection.end))

/** Server: starts a new session with the candidate, on these terms. */
export const grant = (
  connection: Connection,
  { ciphers }: Candidate,
  terms: Signal.Terms
): Effect.Effect<void, HandshakeError> => sendLine(connection, ciphers, Signal.toText(terms))

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
  { ciphers, keys }: Candidate,
  { count, fingerprint, keys: previous, received }: Resuming
): Effect.Effect<void, HandshakeError> => {
  const proof = proofOf(previous.admit(0), proofText(previous, keys, "resumed"))
  const lowest = count === undefined ? "" : `&count=${count}`
  const pinned = fingerprint === undefined ? "" : `&fp=${fingerprint}`
  return sendLine(connection, ciphers, `//control?got=${received + 1}&proof=${proof}${lowest}${pinned}#resumed`)
}

/**
 * Client: authenticates on a new control connection. It resumes the previous session if the server still has it, and
 * otherwise accepts the server's terms for a new session.
 *
 * `tls` is the weakest mode that the client accepts. Fails with `NoAnswer`, `WrongKey` (the server does not know the key),
 * `Busy`, `Downgrade`, `Malformed` or `TimedOut`.
 */
export const accept = (
  connection: Connection,
  options: {
    readonly psk: Noise.Psk
    readonly salt: Salt
    readonly client: string
    readonly tls: TlsMode.TlsMode
    readonly resume?: Resumable | undefined
  } & Offer
): Effect.Effect<Agreement, HandshakeError, Crypto | Deadlines | Deflate | Settings> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { codec } = yield* Deflate
    const { message, read } = yield* FirstMessage.hello(options.psk, options.salt)
    yield* writeMessage(connection, message)
    const welcome = read(yield* readMessage(connection, "NoAnswer"))
    if (Option.isNone(welcome)) return yield* refuse("WrongKey", connection)
    const { ciphers, payload, secret } = welcome.value
    const offered = Frame.toText(payload)
    if (!welcomeLine.test(offered)) return yield* refuse("Malformed", connection)
    const keys = Key.session(crypto, secret)
    const previous = options.resume
    const claim = previous === undefined ? "" : claimText(previous, keys)
    const offers = offersOf(codec, options).map((offer) => `&${offer}`)
    yield* sendLine(connection, ciphers, `//control?who=${options.client}${claim}${offers.join("")}#ready`)
    const answer = yield* receiveLine(connection, ciphers)
    const dialect = Dialect.native(ciphers, { codec: agreed(codec, offered) })
    const streams = agreesOnStreams(options, offered)
    const run = runOf(offered)
    if (answer.endsWith("#busy")) return yield* refuse("Busy", connection)
    if (previous !== undefined && answer.endsWith("#resumed")) {
      const [, received, proof = ""] = resumedLine.exec(answer) ?? []
      const text = Signal.withParameter(proofText(previous.keys, keys, "resumed"), "mac", proof)
      if (received === undefined || Option.isNone(previous.keys.admit(0).open(text))) {
        return yield* refuse("Malformed", connection)
      }
      const count = /[?&]count=(\d{1,15})[&#]/.exec(answer)?.[1]
      return {
        _tag: "Resumed",
        keys,
        dialect,
        streams,
        run,
        received: Number(received) - 1,
        count: count === undefined ? undefined : Number(count),
        fingerprint: /[?&]fp=([0-9a-f]{64})[&#]/.exec(answer)?.[1]
      } as const
    }
    const terms = yield* Effect.mapError(decodeTerms(answer), () => make("Malformed", connection))
    if (TlsMode.isWeaker(terms.tls, options.tls)) return yield* refuse("Downgrade", connection)
    return { _tag: "New", terms, keys, dialect, streams, run } as const
  }).pipe(inTime(connection))

// internal

const welcomeLine = /^\/\/control(?:\?[^#]*)?#welcome$/
const readyLine = /^\/\/control\?who=([0-9a-f]{16})(?:&[^#]*)?#ready$/
const resumeClaim = /[?&]session=([0-9a-f]{16})&got=(\d{1,15})&proof=([0-9a-f]{32})[&#]/
const resumedLine = /^\/\/control\?got=(\d{1,15})&proof=([0-9a-f]{32})(?:&[^#]*)?#resumed$/

const offersOf = (codec: Option.Option<Codec>, offer: Offer | undefined): ReadonlyArray<string> => [
  ...(Option.isSome(codec) ? ["z=1"] : []),
  ...(offer?.streams === true ? ["streams=1"] : []),
  ...(offer?.run === undefined ? [] : [`run=${offer.run}`])
]

const runOf = (line: string): string | undefined => /[?&]run=([0-9a-f]{8})[&#]/.exec(line)?.[1]

/** Whether this side offers streams, and the other side's line does. */
const agreesOnStreams = (offer: Offer | undefined, line: string): boolean =>
  offer?.streams === true && Signal.parameter(line, "streams") === "1"

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

const sendLine = (connection: Connection, { sending }: Noise.Ciphers, line: string) =>
  writeMessage(connection, sending.encrypt(Frame.fromText(line)))

const receiveLine = (connection: Connection, { receiving }: Noise.Ciphers) =>
  Effect.flatMap(readMessage(connection, "Ended"), (message) =>
    Option.match(receiving.decrypt(message), {
      onNone: () => refuse("WrongKey", connection),
      onSome: (bytes) => Effect.succeed(Frame.toText(bytes))
    })
  )
