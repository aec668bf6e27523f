/**
 * The key of the master's API: kept as a hash, asked for in constant time, guessed at slowly.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { Crypto } from "../transport/Crypto.js"
import type { StoreError } from "./InstanceStore.js"
import { Master } from "./Master.js"
import type { Ticket } from "./ApiPayloads.js"

/** `Throttled`: its address has been wrong too often, and is not listened to for `seconds`. */
export class KeyRefused extends Schema.TaggedError<KeyRefused>()("KeyRefused", {
  reason: Schema.Literal("Missing", "Wrong", "Throttled"),
  seconds: Schema.Number
}) {
  override get message(): string {
    return this.reason === "Missing"
      ? "Unauthorized: API key required"
      : this.reason === "Wrong"
        ? "Unauthorized: Invalid API key"
        : `too many wrong API keys from this address: expected none for ${this.seconds} s`
  }
}

export class ApiKey extends Context.Tag("nodepass/ApiKey")<
  ApiKey,
  {
    /** Fails unless it is the key; `address` is where it came from. */
    readonly verify: (given: Redacted.Redacted, address: string) => Effect.Effect<void, KeyRefused>
    /** A new key in place of the one before, which is worth nothing from then on. 32 hex digits. */
    readonly renew: Effect.Effect<Redacted.Redacted, StoreError>
    /** Whether no key was ever made. */
    readonly isMissing: Effect.Effect<boolean>
    /** Completes when the present key has been renewed. */
    readonly renewed: Effect.Effect<void>
    /** A word that stands for the key once, within a minute: for those who cannot set a header. */
    readonly issue: (key: Redacted.Redacted) => Effect.Effect<Ticket>
    /** The key that the ticket stands for. */
    readonly redeem: (ticket: string, address: string) => Effect.Effect<Redacted.Redacted, KeyRefused>
  }
>() {}

export const layer: Layer.Layer<ApiKey, never, Crypto | Master> = Layer.effect(
  ApiKey,
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const master = yield* Master
    const attempts = new Map<string, Attempts>()
    const tickets = new Map<string, { readonly key: Redacted.Redacted; readonly expires: number }>()
    const hash = (text: string) => Encoding.encodeHex(crypto.hmac(label, utf8.encode(text)))
    let turn = yield* Deferred.make<void>()

    /** Wrong ones are paid for; who has nothing left is not listened to. */
    const guarded = (address: string, isRight: (now: number) => Effect.Effect<boolean>) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const { at, room } = attempts.get(address) ?? { at: now, room: burst }
        const left = Math.min(burst, room + (now - at) / millisEach)
        if (left < 1) {
          return yield* new KeyRefused({ reason: "Throttled", seconds: Math.ceil(((1 - left) * millisEach) / 1000) })
        }
        attempts.delete(address)
        if (yield* isRight(now)) return
        attempts.set(address, { at: now, room: left - 1 })
        const [oldest] = attempts.keys()
        if (attempts.size > addresses && oldest !== undefined) attempts.delete(oldest)
        return yield* new KeyRefused({ reason: "Wrong", seconds: 0 })
      })

    return ApiKey.of({
      verify: (given, address) => {
        const text = Redacted.value(given)
        return text === ""
          ? Effect.fail(new KeyRefused({ reason: "Missing", seconds: 0 }))
          : guarded(address, () => Effect.map(master.identity, ({ keyHash }) => isEqual(hash(text), keyHash)))
      },
      renew: Effect.gen(function* () {
        const key = Encoding.encodeHex(yield* crypto.randomBytes(16))
        yield* master.identify({ keyHash: hash(key) })
        tickets.clear()
        yield* Deferred.succeed(turn, undefined)
        turn = yield* Deferred.make<void>()
        return Redacted.make(key)
      }),
      isMissing: Effect.map(master.identity, ({ keyHash }) => keyHash === ""),
      renewed: Effect.suspend(() => Deferred.await(turn)),
      issue: (key) =>
        Effect.gen(function* () {
          const expires = (yield* Clock.currentTimeMillis) + ticketMillis
          const ticket = Encoding.encodeHex(yield* crypto.randomBytes(16))
          tickets.set(ticket, { key, expires })
          const [oldest] = tickets.keys()
          if (tickets.size > ticketsMost && oldest !== undefined) tickets.delete(oldest)
          return { ticket, expires }
        }),
      redeem: (ticket, address) =>
        Effect.suspend(() => {
          const found = tickets.get(ticket)
          tickets.delete(ticket)
          const isRight = (now: number) => Effect.succeed(found !== undefined && now < found.expires)
          return Effect.as(guarded(address, isRight), found?.key ?? Redacted.make(""))
        })
    })
  })
)

// internal

/** How many wrong keys an address has left, as of when. */
interface Attempts {
  readonly at: number
  readonly room: number
}

/** Wrong keys at once, and then one in so long. */
const burst = 10
const millisEach = 3000
/** Addresses remembered: those that were wrong last. */
const addresses = 4096
const ticketMillis = 60_000
const ticketsMost = 1024

const utf8 = new TextEncoder()
/** The key has 128 bits of chance: nothing is gained by salt or by slowness. */
const label = utf8.encode("nodepass API key")

/** Takes the same time wherever they differ. */
const isEqual = (a: string, b: string): boolean => {
  let difference = a.length ^ b.length
  for (let at = 0; at < a.length; at++) difference |= a.charCodeAt(at) ^ b.charCodeAt(at % Math.max(1, b.length))
  return difference === 0
}
