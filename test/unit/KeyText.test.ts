import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto } from "../../src/transport/Crypto.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as KeyText from "../../src/tunnel/KeyText.js"

const weakness = (key: string) => Option.getOrElse(KeyText.weakness(Redacted.make(key)), () => "none")
const digits = "0123456789"
const lower = "abcdefghijklmnopqrstuvwxyz"
const alphabets = [`${digits}abcdef`, `${digits}${lower}${lower.toUpperCase()}-_`, `${lower}234567`]

describe("the strength of a tunnel key", () => {
  it.effect("is enough for every key that `nodepass key` makes, which are URL-safe and differ", () =>
    Effect.gen(function* () {
      const keys = yield* Effect.replicateEffect(KeyText.generate, 200)
      for (const key of keys) {
        assert.match(Redacted.value(key), /^[a-z2-7]{26}$/)
        assert.strictEqual(weakness(Redacted.value(key)), "none")
      }
      assert.strictEqual(new Set(keys.map(Redacted.value)).size, keys.length)
    }).pipe(Effect.provide(SimCrypto.layer(1)))
  )

  it.effect("is enough for random characters of 80 bits", () =>
    Effect.gen(function* () {
      const { randomBytes } = yield* Crypto
      for (const alphabet of alphabets) {
        const length = Math.ceil(80 / Math.log2(alphabet.length))
        for (let count = 0; count < 500; count++) {
          const key = Array.from(yield* randomBytes(length), (byte) => alphabet[byte % alphabet.length]).join("")
          assert.strictEqual(weakness(key), "none", key)
        }
      }
    }).pipe(Effect.provide(SimCrypto.layer(2)))
  )

  it.prop(
    "is not enough for what repeats or counts, however long",
    [FastCheck.integer({ min: 0, max: 5 })],
    ([more]) => {
      for (const part of ["a", "ab1", "x9Z"]) assert.notStrictEqual(weakness(part.repeat(20 + more)), "none")
      assert.notStrictEqual(weakness(lower.slice(0, 20 + more)), "none")
      assert.notStrictEqual(weakness("x".repeat(100_000 + more)), "none")
    }
  )

  it.each([
    ["password", "Common"],
    ["P4ssw0rd!", "Common"],
    ["s3cret", "Common"],
    ["my-key", "Common"],
    ["MyKey2024", "Common"],
    ["correct horse battery staple", "Common"],
    ["123456789012", "Short"],
    ["k", "Short"],
    ["Tr0ub4dor", "Short"],
    ["blue green yellow", "Short"],
    ["550e8400-e29b-41d4-a716-446655440000", "none"],
    ["gravity-nutmeg-walrus-cobalt-tripod-lantern", "none"],
    ["ключключ", "Short"],
    ["83649176348716349871abc", "none"]
  ])("of %s: %s", (key, expected) => {
    assert.strictEqual(weakness(key), expected)
  })

  it("shows nothing of the key in the warning", () => {
    const sentence = Option.getOrElse(KeyText.warning(Redacted.make("hunter2")), () => "")
    assert.include(sentence, "`nodepass key`")
    assert.notInclude(sentence, "hunter")
  })
})
