/**
 * The key of the master's API: stored as a hash, compared in constant time, with a rate limit on wrong keys.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { Crypto } from "../transport/Crypto.js"
import type { Ticket } from "./ApiPayloads.js"
import type { Expected, VersionMismatch } from "./Instance.js"
import { InstanceStore, type StoreError } from "./InstanceStore.js"
import { Master } from "./Master.js"
import * as MasterIdentity from "./MasterIdentity.js"
import { withoutStack } from "../core/WithoutStack.js"

/** `Throttled`: too many wrong keys came from the address; further wrong keys fail like this for `seconds`. */
export class KeyRefused extends withoutStack(
  Schema.TaggedError<KeyRefused>()("KeyRefused", {
    reason: Schema.Literal("Missing", "Wrong", "Throttled"),
    seconds: Schema.Number
  })
) {
  override get message(): string {
    return this.reason === "Missing"
      ? "Unauthorized: API key required"
      : this.reason === "Wrong"
        ? "Unauthorized: Invalid API key"
        : `too many wrong API keys from this address; retry in ${this.seconds} s`
  }
}

/** The new key could not be printed, so it was not stored: the previous key, if any, stays valid. */
export class KeyNotShown extends Schema.TaggedError<KeyNotShown>()("KeyNotShown", {
  /** Why it could not be shown, as a clause. */
  detail: Schema.String
}) {
  override get message(): string {
    return `the new API key was not stored, because it could not be shown: ${this.detail}`
  }
}

export class ApiKey extends Context.Tag("nodepass/ApiKey")<
  ApiKey,
  {
    /**
     * Fails unless `given` is the key. `address` is the client's, for the rate limit of wrong keys.
     *
     * The right key is always accepted: many clients may have one address, that of a proxy.
     */
    readonly verify: (given: Redacted.Redacted, address: string) => Effect.Effect<void, KeyRefused>
    /**
     * Replaces the key by a new one, 32 hex digits, if its entity tag is one that the caller expects. The previous key and all
     * tickets are invalid from then on.
     */
    readonly renew: (expected?: Expected) => Effect.Effect<Redacted.Redacted, StoreError | VersionMismatch>
    /** Whether no key was created yet. */
    readonly isMissing: Effect.Effect<boolean>
    /** Completes when the present key is replaced. */
    readonly renewed: Effect.Effect<void>
    /** Creates a ticket, which replaces the key once, within a minute: for clients that cannot set a header. */
    readonly issue: (key: Redacted.Redacted) => Effect.Effect<Ticket>
    /** Uses up the ticket and returns the key that it was issued for. Fails when the ticket is unknown or expired. */
    readonly redeem: (ticket: string, address: string) => Effect.Effect<Redacted.Redacted, KeyRefused>
  }
>() {}

export const layer: Layer.Layer<ApiKey, never, Crypto | Master> = Layer.effect(
  ApiKey,
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const master = yield* Master
    const attempts = new Map<string, Attempts>()
    const tickets = new Map<string, IssuedTicket>()
    const hash = hashWith(crypto)

    /** Fails unless the key or ticket is right. A wrong one costs the address one attempt, while it has any left. */
    const accept = (isRight: boolean, now: number, address: string) =>
      Effect.suspend(() => {
        if (isRight) return Effect.void
        const { left, time } = attempts.get(address) ?? { time: now, left: maxAttempts }
        const available = Math.min(maxAttempts, left + (now - time) / millisPerAttempt)
        if (available < 1) {
          const seconds = Math.ceil(((1 - available) * millisPerAttempt) / 1000)
          return new KeyRefused({ reason: "Throttled", seconds })
        }
        attempts.delete(address)
        attempts.set(address, { time: now, left: available - 1 })
        removeOldest(attempts, maxAddresses)
        return new KeyRefused({ reason: "Wrong", seconds: 0 })
      })

    return ApiKey.of({
      verify: (given, address) =>
        Effect.gen(function* () {
          const text = Redacted.value(given)
          if (text === "") return yield* new KeyRefused({ reason: "Missing", seconds: 0 })
          const { keyHash } = yield* master.identity
          yield* accept(isEqual(hash(given), keyHash), yield* Clock.currentTimeMillis, address)
        }),
      renew: (expected) =>
        Effect.gen(function* () {
          const key = yield* generate(crypto)
          yield* master.identify({ keyHash: hash(key) }, expected)
          return key
        }),
      isMissing: Effect.map(master.identity, ({ keyHash }) => keyHash === ""),
      renewed: master.keyReplaced,
      issue: (key) =>
        Effect.gen(function* () {
          const expires = (yield* Clock.currentTimeMillis) + ticketMillis
          const ticket = Encoding.encodeHex(yield* crypto.randomBytes(16))
          const { keyHash } = yield* master.identity
          tickets.set(ticket, { key, keyHash, expires })
          removeOldest(tickets, maxTickets)
          return { ticket, expires }
        }),
      redeem: (ticket, address) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          const found = tickets.get(ticket)
          tickets.delete(ticket)
          const { keyHash } = yield* master.identity
          yield* accept(found !== undefined && now < found.expires && found.keyHash === keyHash, now, address)
          return found?.key ?? Redacted.make("")
        })
    })
  })
)

/** Shows a key to the user. The key is stored once this has succeeded. */
export type Show = (key: Redacted.Redacted) => Effect.Effect<void, KeyNotShown>

/** Gives the store its first key, before a master opens. Does nothing when it has one. */
export const create = (show: Show): Effect.Effect<void, KeyNotShown | StoreError, Crypto | InstanceStore> =>
  Effect.flatMap(MasterIdentity.open, ({ keyHash }) => (keyHash === "" ? store(show) : Effect.void))

/** Replaces the key in the store. A master that uses the store accepts the new key within a report interval. */
export const replace = (show: Show): Effect.Effect<void, KeyNotShown | StoreError, Crypto | InstanceStore> =>
  Effect.zipRight(MasterIdentity.open, store(show))

// internal

const store = (show: Show) =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { saveIdentity } = yield* InstanceStore
    const key = yield* generate(crypto)
    yield* show(key)
    yield* saveIdentity({ keyHash: hashWith(crypto)(key) })
  })

const generate = ({ randomBytes }: Crypto["Type"]) =>
  Effect.map(randomBytes(16), (bytes) => Redacted.make(Encoding.encodeHex(bytes)))

const hashWith =
  ({ hmac }: Crypto["Type"]) =>
  (key: Redacted.Redacted): string =>
    Encoding.encodeHex(hmac(hashLabel, utf8.encode(Redacted.value(key))))

interface IssuedTicket {
  readonly key: Redacted.Redacted
  /** Of the key that was valid then: the ticket ends with it. */
  readonly keyHash: string
  readonly expires: number
}

/** How many wrong keys an address may still send, as of `time`. */
interface Attempts {
  readonly time: number
  readonly left: number
}

/** Wrong keys that an address may send at once, and the time until it may send another one. */
const maxAttempts = 10
const millisPerAttempt = 3000
/** Addresses whose attempts are remembered. */
const maxAddresses = 4096
const ticketMillis = 60_000
const maxTickets = 1024

const utf8 = new TextEncoder()
/** The key has 128 random bits: a salt or a slow hash would add nothing. */
const hashLabel = utf8.encode("nodepass API key")

const removeOldest = (entries: Map<string, unknown>, limit: number): void => {
  const [oldest] = entries.keys()
  if (entries.size > limit && oldest !== undefined) entries.delete(oldest)
}

/** Takes the same time wherever the texts differ. */
const isEqual = (a: string, b: string): boolean => {
  let difference = a.length ^ b.length
  for (let at = 0; at < a.length; at++) difference |= a.charCodeAt(at) ^ b.charCodeAt(at % Math.max(1, b.length))
  return difference === 0
}
