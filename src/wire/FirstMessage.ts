/**
 * The first message of a connection, by which the server decides whether to answer at all. A peer that does not know the key
 * receives no byte, and neither does one that sends what another client sent before.
 *
 * ```
 * client                                                     server
 *   02 <salt> <Noise: ephemeral, //control?at=<time>#hello>   ──▶ receive    Hello
 *   //pool?session=<id>&n=<count>&mac=#join                   ──▶ receive    Join
 * ```
 *
 * The key is checked before any Diffie-Hellman. The time and the memory of `HelloGuard` refuse what is sent again.
 *
 * Source: docs/protocol.md §Handshake.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import type { Address } from "../core/Address.js"
import type { Deadlines } from "../core/Deadlines.js"
import { Crypto } from "../transport/Crypto.js"
import type { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import * as Frame from "./Frame.js"
import { clockTolerance, HandshakeError, refuse } from "./HandshakeError.js"
import * as HandshakeStep from "./HandshakeStep.js"
import * as Noise from "./Noise.js"
import type { Salt, TunnelKey } from "./TunnelKey.js"

/** The sender of a `Hello` knows the tunnel key, and sends this now for the first time. A `Join` is not verified yet. */
export type FirstMessage =
  | {
      readonly _tag: "Hello"
      readonly key: TunnelKey
      readonly salt: Salt
      readonly answer: Noise.Read["answer"]
    }
  | { readonly _tag: "Join"; readonly session: string; readonly line: string }

/** What a server shares among all connections, so that unauthenticated peers cost it little and nothing is accepted twice. */
export interface HelloGuard {
  /** Stretches a key for this peer, or returns `None` when too many ask for that. */
  readonly stretch: <A>(peer: Address, stretching: Effect.Effect<A>) => Effect.Effect<Option.Option<A>>
  /** Whether this ephemeral key is new; remembers it for as long as its message could be accepted again. */
  readonly isNew: (ephemeral: Uint8Array, now: number) => boolean
}

export interface Options {
  /** The tunnel keys in force. */
  readonly keys: Effect.Effect<ReadonlyArray<TunnelKey>>
  readonly guard: HelloGuard
}

/** Client: the first message of a control connection, and how to read the answer. */
export const hello = (psk: Noise.Psk, salt: Salt): Effect.Effect<Noise.Initiated, never, Crypto> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const now = yield* Clock.currentTimeMillis
    const head = headOf(salt)
    const payload = Frame.fromText(`//control?at=${Math.round(now)}#hello`)
    const ephemeral = yield* Noise.ephemeral
    const { message, read } = Noise.initiate(crypto, { psk, prologue: prologueOf(head), ephemeral, payload })
    return { message: Frame.concat([head, message]), read }
  })

/**
 * Server: reads the first message of a connection, and finds out which of the keys its sender knows. Fails with `WrongKey`,
 * `Clock`, `Replayed`, `Unstretched`, `Malformed`, `Version`, `TimedOut` or `Ended`.
 */
export const receive = (
  connection: Connection,
  options: Options
): Effect.Effect<FirstMessage, HandshakeError, Crypto | Deadlines | Settings> =>
  Effect.flatMap(HandshakeStep.readFirst(connection), (first): Effect.Effect<FirstMessage, HandshakeError, Crypto> =>
    first._tag === "Message" ? receiveHello(connection, options, first.message) : receiveJoin(connection, first.line)
  ).pipe(HandshakeStep.inTime(connection))

/** Whether a first message can begin with these bytes. */
export const canBegin = (first: Uint8Array): boolean => {
  if (first[0] === joinStart[0]) return first.subarray(0, joinStart.length).every((byte, at) => byte === joinStart[at])
  const length = Frame.lengthOf(first)
  return length === undefined || (length > 0 && length <= HandshakeStep.maxBytes)
}

// internal

const joinStart = Frame.fromText("//pool?session=")

const version = 2
const saltLength = 16
const headLength = 1 + saltLength

const joinLine = /^\/\/pool\?session=([0-9a-f]{16})&[^#]*#join$/
const helloLine = /^\/\/control\?at=(\d{1,15})(?:&[^#]*)?#hello$/

const headOf = (salt: Salt): Uint8Array =>
  Uint8Array.of(
    version,
    ...Array.from({ length: saltLength }, (_, at) => Number.parseInt(salt.slice(2 * at, 2 * at + 2), 16))
  )

/** What both sides have sent and received in clear text. */
const prologueOf = (head: Uint8Array): Uint8Array => Frame.concat([Frame.fromText("nodepass-effect/2 control"), head])

const receiveJoin = (connection: Connection, line: string) => {
  const session = joinLine.exec(line)?.[1]
  return session === undefined
    ? refuse("Malformed", connection)
    : Effect.succeed({ _tag: "Join", session, line } as const)
}

const receiveHello = (connection: Connection, { guard, keys }: Options, first: Uint8Array) =>
  Effect.gen(function* () {
    if (first[0] !== version) return yield* refuse("Version", connection)
    const crypto = yield* Crypto
    const head = first.subarray(0, headLength)
    const salt = Encoding.encodeHex(head.subarray(1))
    const prologue = prologueOf(head)
    const message = first.subarray(headLength)
    const open = (key: TunnelKey, psk: Noise.Psk) =>
      Option.map(Noise.read(crypto, { psk, prologue }, message), (read) => ({ key, psk, read }))

    const inForce = yield* keys
    // Every key is tried even after one fits, so that the time does not reveal which one it was.
    const known = inForce.map((key) => Option.flatMap(key.find(salt), (psk) => open(key, psk)))
    const opened = Option.firstSomeOf(known)
    const { key, psk, read } = Option.isSome(opened)
      ? opened.value
      : yield* openStretched(connection, { guard, inForce, salt, open })

    yield* checkTime(connection, Frame.toText(read.payload))
    const now = yield* Clock.currentTimeMillis
    if (!guard.isNew(read.ephemeral, now)) return yield* refuse("Replayed", connection)
    key.keep(salt, psk)
    return { _tag: "Hello", key, salt, answer: read.answer } as const
  })

/** Tries the keys that must be stretched for this salt first. */
const openStretched = <A>(
  connection: Connection,
  {
    guard,
    inForce,
    open,
    salt
  }: {
    readonly guard: HelloGuard
    readonly inForce: ReadonlyArray<TunnelKey>
    readonly salt: Salt
    readonly open: (key: TunnelKey, psk: Noise.Psk) => Option.Option<A>
  }
): Effect.Effect<A, HandshakeError> =>
  Effect.gen(function* () {
    const unknown = inForce.filter((key) => Option.isNone(key.find(salt)))
    if (unknown.length === 0) return yield* refuse("WrongKey", connection)
    const stretching = Effect.forEach(unknown, (key) => Effect.map(key.stretch(salt), (psk) => open(key, psk)))
    const stretched = yield* guard.stretch(connection.remote, stretching)
    if (Option.isNone(stretched)) return yield* refuse("Unstretched", connection)
    return yield* Option.match(Option.firstSomeOf(stretched.value), {
      onNone: () => refuse("WrongKey", connection),
      onSome: Effect.succeed
    })
  })

const checkTime = (connection: Connection, payload: string): Effect.Effect<void, HandshakeError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const at = helloLine.exec(payload)?.[1]
    if (at === undefined) return refuse("Version", connection)
    const ahead = Number(at) - now
    if (Math.abs(ahead) <= clockTolerance) return Effect.void
    const seconds = Math.round(Math.abs(ahead) / 1000)
    const difference = `${Duration.format(Duration.seconds(seconds))} ${ahead > 0 ? "ahead of" : "behind"} this one`
    return new HandshakeError({ reason: "Clock", peer: connection.remote, difference })
  })
