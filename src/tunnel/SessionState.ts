/**
 * The state of a server's session that survives the process: stored when the tunnel stops, and restored when the next
 * process starts within the grace period, under the same terms.
 *
 * Keys, numbers and unacknowledged signals survive. Launches and pool connections end with the process. The secret of the
 * session is encrypted with the tunnel key, so the file alone is of no use.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as AcceptingPool from "../pool/AcceptingPool.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { Crypto } from "../transport/Crypto.js"
import * as Key from "../wire/Key.js"
import type { Psk } from "../wire/Noise.js"
import * as Signal from "../wire/Signal.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import type { SessionProof } from "./SessionProof.js"
import { SessionStore } from "./SessionStore.js"

export interface SessionState {
  /** The id of the client's process. */
  readonly client: string
  readonly proof: SessionProof
  readonly bus: SignalBus.Snapshot
  readonly pool: AcceptingPool.Snapshot
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
}

/** The stored session of one tunnel. */
export interface Stored {
  /** Whether the host stores sessions. */
  readonly isEnabled: boolean
  /** Stores the session. A failure is logged: the client begins a new session. */
  readonly save: (state: SessionState) => Effect.Effect<void>
  /** Takes the last session, unless it is older than `grace`, or was saved under other terms or another tunnel key. */
  readonly restore: (options: {
    readonly key: TunnelKey.TunnelKey
    readonly grace: Duration.Duration
  }) => Effect.Effect<Option.Option<SessionState>>
}

export interface Options {
  /** The name of the tunnel in the store. */
  readonly tunnel: string
  /** The server's terms, as they are sent. */
  readonly terms: string
}

export const make = ({ terms, tunnel }: Options): Effect.Effect<Stored, never, Crypto | SessionStore> =>
  Effect.map(Effect.all([Crypto, SessionStore]), ([crypto, { store }]) => ({
    isEnabled: Option.isSome(store),
    save: (state) =>
      Effect.gen(function* () {
        if (Option.isNone(store)) return
        const { key, keys, salt } = state.proof
        const psk = yield* TunnelKey.derive(key, salt)
        const nonce = yield* crypto.randomBytes(nonceLength)
        const secret = crypto.seal({ ...sealingOf(crypto, psk, nonce), data: Redacted.value(keys.secret) })
        const sealed = { nonce: Encoding.encodeHex(nonce), secret: Encoding.encodeHex(secret) }
        yield* store.value.put(
          tunnel,
          yield* Effect.orDie(encode(yield* Clock.currentTimeMillis, terms, state, sealed))
        )
      }).pipe(Effect.catchAll(({ message }) => Effect.logWarning(message))),
    restore: ({ grace, key }) =>
      Effect.gen(function* () {
        if (Option.isNone(store)) return Option.none()
        const text = yield* Effect.catchAll(store.value.take(tunnel), ({ message }) =>
          Effect.as(Effect.logWarning(message), Option.none<string>())
        )
        if (Option.isNone(text)) return Option.none()
        const decoded = Schema.decodeEither(FromJson)(text.value)
        if (Either.isLeft(decoded)) {
          yield* Effect.logWarning("the stored session cannot be decoded; beginning a new one")
          return Option.none()
        }
        const saved = decoded.right
        const age = (yield* Clock.currentTimeMillis) - saved.at
        if (age > Duration.toMillis(grace) || saved.terms !== terms) return Option.none()
        const psk = yield* TunnelKey.derive(key, saved.salt)
        const [nonce, data] = [bytesOf(saved.nonce), bytesOf(saved.secret)]
        return Option.map(crypto.open({ ...sealingOf(crypto, psk, nonce), data }), (secret) => {
          const keys = Key.session(crypto, Redacted.make(secret))
          return stateOf(saved, { key, salt: saved.salt, keys })
        })
      })
  }))

// internal

const count = Schema.Int.pipe(Schema.nonNegative())
const hex = Schema.String.pipe(Schema.pattern(/^(?:[0-9a-f]{2})+$/))

class StoredSession extends Schema.Class<StoredSession>("nodepass/SessionState/StoredSession")({
  version: Schema.Literal(2),
  /** Milliseconds of the time of day. */
  at: Schema.Number,
  client: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/)),
  /** The salt that the client uses, which it sends in clear text. */
  salt: hex,
  /** The secret of the session, encrypted, and the random bytes that its key is derived from together with the tunnel key. */
  nonce: hex,
  secret: hex,
  /** As they were sent. */
  terms: Schema.String,
  /** The number of the server's next signal, and the lowest that the client's next one may have. */
  next: count,
  expected: count,
  /** Signals that the client has not acknowledged, without launches: their visitors end with the process. */
  outbox: Schema.Array(Schema.Struct({ text: Schema.String, number: Schema.NullOr(count) })),
  /** See `AcceptingPool.Snapshot`. */
  ids: count,
  joins: count,
  streams: Schema.optionalWith(Schema.Boolean, { default: () => false })
}) {}

const FromJson = Schema.parseJson(StoredSession)

const nonceLength = 16

/** Each stored session is encrypted with a key of its own, so the nonce of the cipher can be zero. */
const sealingOf = (crypto: Crypto["Type"], psk: Psk, nonce: Uint8Array) => ({
  key: Key.derive(crypto, psk, `stored session ${Encoding.encodeHex(nonce)}`),
  nonce: new Uint8Array(12),
  associated: new Uint8Array(0)
})

const bytesOf = (digits: string): Uint8Array => Either.getOrElse(Encoding.decodeHex(digits), () => new Uint8Array(0))

const encode = (
  at: number,
  terms: string,
  { bus, client, pool, proof, streams }: SessionState,
  sealed: { readonly nonce: string; readonly secret: string }
) => {
  const outbox = bus.outbox.signals.map(({ number = null, signal }) => ({ text: Signal.toText(signal), number }))
  const { next } = bus.outbox
  return Schema.encode(FromJson)(
    new StoredSession({
      version: 2,
      at,
      client,
      salt: proof.salt,
      ...sealed,
      terms,
      next,
      expected: bus.received + 1,
      outbox,
      streams,
      ...pool
    })
  )
}

const stateOf = (
  { client, expected, ids, joins, next, outbox, streams }: StoredSession,
  proof: SessionProof
): SessionState => {
  const signals = outbox.flatMap(({ number, text }) =>
    Either.match(Signal.fromText(text), {
      onLeft: () => [],
      onRight: (signal) => [{ signal, number: number ?? undefined }]
    })
  )
  return { client, proof, bus: { outbox: { next, signals }, received: expected - 1 }, pool: { ids, joins }, streams }
}
