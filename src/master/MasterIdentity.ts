/**
 * The master's own id, alias and key hash, as the store has them.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import { Crypto } from "../transport/Crypto.js"
import { type Identity, InstanceStore, type StoreError } from "./InstanceStore.js"
import type { StoreHealth } from "./StoreHealth.js"

export interface MasterIdentity {
  readonly get: Effect.Effect<Identity>
  /** Stores the given fields; the others stay as they are. */
  readonly update: (fields: Partial<Identity>) => Effect.Effect<void, StoreError>
}

/** Reads the identity from the store. Creates one with a random id when the store is new. */
export const make = (health: StoreHealth): Effect.Effect<MasterIdentity, StoreError, Crypto | InstanceStore> =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    const crypto = yield* Crypto
    const create = Effect.gen(function* () {
      const created = { mid: Encoding.encodeHex(yield* crypto.randomBytes(8)), alias: "", keyHash: "" }
      yield* store.identify(created)
      return created
    })
    let identity = yield* Effect.flatMap(store.identity, Option.match({ onSome: Effect.succeed, onNone: () => create }))
    return {
      get: Effect.sync(() => identity),
      update: (fields) =>
        Effect.suspend(() => {
          const next = { ...identity, ...fields }
          return Effect.map(health.track(store.identify(next)), () => {
            identity = next
          })
        })
    }
  })
