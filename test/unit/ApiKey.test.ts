import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as ApiKey from "../../src/master/ApiKey.js"
import * as InstanceStore from "../../src/master/InstanceStore.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"

const layer = Layer.merge(InstanceStore.layerMemory, SimCrypto.layer(1))
const keyHash = Effect.flatMap(InstanceStore.InstanceStore, ({ identity }) =>
  Effect.map(identity, Option.match({ onNone: () => "", onSome: ({ keyHash }) => keyHash }))
)

/** Collects the keys that are shown, each with the hash in the store at that time. */
const makeShow = (store: InstanceStore.InstanceStore["Type"]) => {
  const shown: Array<readonly [key: string, stored: string]> = []
  const show: ApiKey.Show = (key) =>
    Effect.map(Effect.provideService(Effect.orDie(keyHash), InstanceStore.InstanceStore, store), (stored) => {
      shown.push([Redacted.value(key), stored])
    })
  return { shown, show }
}
const broken: ApiKey.Show = () => new ApiKey.KeyNotShown({ detail: "standard output: no space left on device" })

describe("the API key of a master", () => {
  it.effect("is stored once it was shown, and created once", () =>
    Effect.gen(function* () {
      const { show, shown } = makeShow(yield* InstanceStore.InstanceStore)
      yield* ApiKey.create(show)
      const hash = yield* keyHash
      yield* ApiKey.create(show)
      assert.match(shown.map(String).join(), /^[0-9a-f]{32},$/)
      assert.match(hash, /^[0-9a-f]{64}$/)
      assert.strictEqual(yield* keyHash, hash)
    }).pipe(Effect.provide(layer))
  )

  it.effect("is not stored when it could not be shown, so that the next start creates one", () =>
    Effect.gen(function* () {
      const { show, shown } = makeShow(yield* InstanceStore.InstanceStore)
      const { message } = yield* Effect.flip(ApiKey.create(broken))
      assert.strictEqual(
        message,
        "the new API key was not stored, because it could not be shown: standard output: no space left on device"
      )
      assert.strictEqual(yield* keyHash, "")
      yield* ApiKey.create(show)
      assert.strictEqual(shown.length, 1)
    }).pipe(Effect.provide(layer))
  )

  it.effect("is replaced in the store when the new one was shown, and stays otherwise", () =>
    Effect.gen(function* () {
      const { show, shown } = makeShow(yield* InstanceStore.InstanceStore)
      yield* ApiKey.create(show)
      const first = yield* keyHash
      yield* Effect.flip(ApiKey.replace(broken))
      assert.strictEqual(yield* keyHash, first)
      yield* ApiKey.replace(show)
      assert.notStrictEqual(yield* keyHash, first)
      assert.strictEqual(new Set(shown.map(([key]) => key)).size, 2)
    }).pipe(Effect.provide(layer))
  )
})
