/**
 * The state of a session that outlives the process of a side, as text.
 *
 * Keys, numbers, counters and signals that are not acknowledged are kept. Launches and pool connections end with the process.
 * The secret of the session is encrypted with the tunnel key, so the text alone is of no use.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as AcceptingPool from "../pool/AcceptingPool.js"
import type * as SignalBus from "../signal/SignalBus.js"
import type { Crypto } from "../transport/Crypto.js"
import * as Key from "../wire/Key.js"
import type { Psk } from "../wire/Noise.js"
import * as Signal from "../wire/Signal.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import type { SessionProof } from "./SessionProof.js"

export interface SessionState {
  /** The id of the client. */
  readonly client: string
  readonly proof: SessionProof
  /** The server's terms, as they were sent. */
  readonly terms: string
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  readonly bus: SignalBus.Snapshot
  /** A client has no ids, and its `joins` is the count of its next pool connection. */
  readonly pool: AcceptingPool.Snapshot
}

/** The secret of a session, encrypted, and the random bytes that its key is derived from together with the tunnel key. */
export interface Sealed {
  readonly nonce: string
  readonly secret: string
}

export const seal = (crypto: Crypto["Type"], { key, keys, salt }: SessionProof): Effect.Effect<Sealed> =>
  Effect.gen(function* () {
    const psk = yield* TunnelKey.derive(key, salt)
    const nonce = yield* crypto.randomBytes(nonceLength)
    const secret = crypto.seal({ ...sealingOf(crypto, psk, nonce), data: Redacted.value(keys.secret) })
    return { nonce: Encoding.encodeHex(nonce), secret: Encoding.encodeHex(secret) }
  })

/** `at`: milliseconds of the time of day. */
export const toText = (
  at: number,
  { bus, client, pool, proof, streams, terms }: SessionState,
  sealed: Sealed
): string =>
  Schema.encodeSync(FromJson)(
    new StoredSession({
      version: 2,
      at,
      client,
      salt: proof.salt,
      ...sealed,
      terms,
      next: bus.outbox.next,
      expected: bus.received + 1,
      outbox: bus.outbox.signals.map(({ number = null, signal }) => ({ text: Signal.toText(signal), number })),
      streams,
      ...pool
    })
  )

/** When it was stored, and the state, unless it was stored with another tunnel key. Fails when it is no stored session. */
export const fromText = (
  crypto: Crypto["Type"],
  text: string,
  key: TunnelKey.TunnelKey
): Effect.Effect<{ readonly at: number; readonly state: Option.Option<SessionState> }, ParseResult.ParseError> =>
  Effect.gen(function* () {
    const saved = yield* Schema.decode(FromJson)(text)
    const psk = yield* TunnelKey.derive(key, saved.salt)
    const [nonce, data] = [bytesOf(saved.nonce), bytesOf(saved.secret)]
    const state = Option.map(crypto.open({ ...sealingOf(crypto, psk, nonce), data }), (secret) => {
      const keys = Key.session(crypto, Redacted.make(secret))
      return stateOf(saved, { key, salt: saved.salt, keys })
    })
    return { at: saved.at, state }
  })

// internal

const count = Schema.Int.pipe(Schema.nonNegative())
const hex = Schema.String.pipe(Schema.pattern(/^(?:[0-9a-f]{2})+$/))

/** What the process that continues the session begins with. */
class StoredSession extends Schema.Class<StoredSession>("nodepass/SessionState/StoredSession")({
  version: Schema.Literal(2),
  at: Schema.Number,
  client: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/)),
  /** The salt that the client uses, which it sends in clear text. */
  salt: hex,
  nonce: hex,
  secret: hex,
  terms: Schema.String,
  /** The number of the next signal, and the lowest that the other side's next one may have. */
  next: count,
  expected: count,
  /** Signals that the other side has not acknowledged, without launches: their visitors end with the process. */
  outbox: Schema.Array(Schema.Struct({ text: Schema.String, number: Schema.NullOr(count) })),
  /** See `AcceptingPool.Snapshot`. */
  ids: count,
  joins: count,
  streams: Schema.optionalWith(Schema.Boolean, { default: () => false })
}) {}

const FromJson = Schema.parseJson(StoredSession)

const nonceLength = 16

/** Each secret is encrypted with a key of its own, so the nonce of the cipher can be zero. */
const sealingOf = (crypto: Crypto["Type"], psk: Psk, nonce: Uint8Array) => ({
  key: Key.derive(crypto, psk, `stored session ${Encoding.encodeHex(nonce)}`),
  nonce: new Uint8Array(12),
  associated: new Uint8Array(0)
})

const bytesOf = (digits: string): Uint8Array => Either.getOrElse(Encoding.decodeHex(digits), () => new Uint8Array(0))

const stateOf = (
  { client, expected, ids, joins, next, outbox, streams, terms }: StoredSession,
  proof: SessionProof
): SessionState => {
  const signals = outbox.flatMap(({ number, text }) =>
    Either.match(Signal.fromText(text), {
      onLeft: () => [],
      onRight: (signal) => [{ signal, number: number ?? undefined }]
    })
  )
  const bus = { outbox: { next, signals }, received: expected - 1 }
  return { client, proof, terms, streams, bus, pool: { ids, joins } }
}
