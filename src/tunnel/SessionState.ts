/**
 * A server's session between two of its processes: written down when the tunnel stops, and found again when the next one
 * starts in time, under the same terms. The launches and pool connections of the old process end with it; the keys, the
 * numbers, and what else the client has not acknowledged stay.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as AcceptingPool from "../pool/AcceptingPool.js"
import { Crypto } from "../transport/Crypto.js"
import * as Key from "../wire/Key.js"
import { FromJson, type Place, StoredSession } from "./SessionStore.js"
import * as Signal from "../wire/Signal.js"
import type * as SignalBus from "../signal/SignalBus.js"

export interface Where {
  readonly place: Option.Option<Place>
  /** Names the tunnel in that place. */
  readonly tunnel: string
  /** The server's terms, as they are sent. */
  readonly terms: string
}

/** What a session consists of, besides its connections. */
export interface SessionState {
  readonly client: string
  readonly keys: Key.SessionKeys
  readonly nonces: { readonly client: string; readonly server: string }
  readonly bus: SignalBus.Snapshot
  readonly pool: AcceptingPool.Snapshot
}

export const isKept = ({ place }: Where): boolean => Option.isSome(place)

/** Writes the session down; that it cannot be written is logged, and the client begins a new one. */
export const keep = ({ place, terms, tunnel }: Where, { bus, client, keys, nonces, pool }: SessionState) =>
  Effect.gen(function* () {
    if (Option.isNone(place)) return
    const outbox = bus.outbox.signals.map(({ number = null, signal }) => ({ text: Signal.toText(signal), number }))
    const saved = new StoredSession({
      version: 1,
      at: yield* Clock.currentTimeMillis,
      client,
      session: keys.id,
      nonces,
      terms,
      next: bus.outbox.next,
      expected: bus.received + 1,
      outbox,
      ...pool
    })
    yield* Effect.orDie(Schema.encode(FromJson)(saved)).pipe(
      Effect.flatMap((text) => place.value.keep(tunnel, text)),
      Effect.catchAll(({ message }) => Effect.logWarning(message))
    )
  })

/** The session that was kept last, unless it is too old, of other terms, or of another key. */
export const restore = (
  { place, terms, tunnel }: Where,
  options: { readonly key: Key.Stretched; readonly grace: Duration.Duration }
): Effect.Effect<Option.Option<SessionState>, never, Crypto> =>
  Effect.gen(function* () {
    if (Option.isNone(place)) return Option.none()
    const text = yield* Effect.catchAll(place.value.take(tunnel), ({ message }) =>
      Effect.as(Effect.logWarning(message), Option.none<string>())
    )
    if (Option.isNone(text)) return Option.none()
    const saved = Schema.decodeEither(FromJson)(text.value)
    if (Either.isLeft(saved)) {
      yield* Effect.logWarning("what was kept of the session of before cannot be read: a new one begins")
      return Option.none()
    }
    const { at, client, expected, ids, joins, next, nonces, outbox, session, terms: before } = saved.right
    const age = (yield* Clock.currentTimeMillis) - at
    const keys = Key.session(yield* Crypto, options.key, nonces)
    if (age > Duration.toMillis(options.grace) || before !== terms || keys.id !== session) return Option.none()
    const signals = outbox.flatMap(({ number, text }) =>
      Either.match(Signal.fromText(text), {
        onLeft: () => [],
        onRight: (signal) => [{ signal, number: number ?? undefined }]
      })
    )
    const bus = { outbox: { next, signals }, received: expected - 1 }
    return Option.some({ client, nonces, keys, bus, pool: { ids, joins } })
  })
