/**
 * The master's own id, alias and key hash, as the store has them.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import { Crypto } from "../transport/Crypto.js"
import { type Expected, keyVersion, VersionMismatch } from "./Instance.js"
import { type Identity, InstanceStore, type StoreError } from "./InstanceStore.js"
import type { StoreHealth } from "./StoreHealth.js"

export interface MasterIdentity {
  readonly get: Effect.Effect<Identity>
  /**
   * Stores the given fields; the others stay as they are. Changes run one after the other. `expects` is called with the
   * entity tag of the present API key.
   */
  readonly update: (fields: Partial<Identity>, expected?: Expected) => Effect.Effect<void, StoreError | VersionMismatch>
  /** Stores the alias. `expects` is called with the entity tag of the present one: see `tagOf`. */
  readonly rename: (alias: string, expected?: Expected) => Effect.Effect<void, StoreError | VersionMismatch>
  /** Reads the identity from the store again: `nodepass key` may have replaced the key. */
  readonly refresh: Effect.Effect<void, StoreError>
  /** Completes when the key is replaced the next time. */
  readonly keyReplaced: Effect.Effect<void>
}

/** The entity tag of what callers can change: the alias. */
export const tagOf = ({ alias }: Pick<Identity, "alias">): string => `"${Encoding.encodeBase64Url(alias)}"`

/** The entity tag of the API key. */
export const keyTagOf = ({ keyHash }: Pick<Identity, "keyHash">): string => `"${keyVersion(keyHash)}"`

/** The identity in the store. Creates one with a random id when the store is new. */
export const open: Effect.Effect<Identity, StoreError, Crypto | InstanceStore> = Effect.gen(function* () {
  const store = yield* InstanceStore
  const crypto = yield* Crypto
  const create = Effect.gen(function* () {
    const created = { mid: Encoding.encodeHex(yield* crypto.randomBytes(8)), alias: "", keyHash: "" }
    yield* store.identify(created)
    return created
  })
  return yield* Effect.flatMap(store.identity, Option.match({ onSome: Effect.succeed, onNone: () => create }))
})

export const make = (health: StoreHealth): Effect.Effect<MasterIdentity, StoreError, Crypto | InstanceStore> =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    let identity = yield* open
    let replaced = yield* Deferred.make<void>()
    const updates = { started: 0, ended: 0 }
    const set = (next: Identity) =>
      Effect.gen(function* () {
        const { keyHash } = identity
        identity = next
        if (next.keyHash === keyHash) return
        yield* Deferred.succeed(replaced, undefined)
        replaced = yield* Deferred.make<void>()
      })
    const lock = yield* Effect.makeSemaphore(1)
    const inTurn = <A, E>(self: Effect.Effect<A, E>) => lock.withPermits(1)(Effect.uninterruptible(self))
    /** Runs the change if what it changes has a tag that the caller expects. */
    const ifExpected = <A, E>(what: string, tag: string, expected: Expected | undefined, change: Effect.Effect<A, E>) =>
      Effect.suspend((): Effect.Effect<A, E | VersionMismatch> =>
        expected?.expects?.(tag) === false ? new VersionMismatch({ what, tag }) : change
      )
    const save = (fields: Partial<Identity>) =>
      Effect.gen(function* () {
        updates.started++
        yield* health.track(store.saveIdentity(fields))
        yield* set({ ...identity, ...fields })
      }).pipe(Effect.ensuring(Effect.sync(() => updates.ended++)))
    return {
      get: Effect.sync(() => identity),
      update: (fields, expected) =>
        inTurn(Effect.suspend(() => ifExpected("the API key", keyTagOf(identity), expected, save(fields)))),
      rename: (alias, expected) =>
        inTurn(Effect.suspend(() => ifExpected("the master", tagOf(identity), expected, save({ alias })))),
      refresh: Effect.gen(function* () {
        const { ended } = updates
        const stored = yield* health.trackRead(store.identity)
        // What was read may be older or newer than an update of this process.
        const isOwn = updates.started !== ended
        if (isOwn || Option.isNone(stored) || stored.value.keyHash === identity.keyHash) return
        yield* set({ ...identity, keyHash: stored.value.keyHash })
        yield* Effect.logInfo("another process replaced the API key in the store; the previous key is no longer valid")
      }),
      keyReplaced: Effect.suspend(() => Deferred.await(replaced))
    }
  })
