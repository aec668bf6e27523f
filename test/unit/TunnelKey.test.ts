import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Address from "../../src/core/Address.js"
import { Crypto } from "../../src/transport/Crypto.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as TunnelKey from "../../src/wire/TunnelKey.js"

const crypto = Effect.runSync(Effect.provide(Crypto, SimCrypto.layer(1)))
const run = <A>(effect: Effect.Effect<A, never, Crypto>, own = crypto): A =>
  Effect.runSync(Effect.provideService(effect, Crypto, own))
const keyOf = (text: string, own = crypto) => run(TunnelKey.make(Option.some(Redacted.make(text))), own)
const saltOf = (host: string, port = 1) => run(TunnelKey.saltOf(Address.make(host, port)))
const derive = (key: TunnelKey.TunnelKey, salt: TunnelKey.Salt) =>
  Redacted.value(Effect.runSync(TunnelKey.derive(key, salt)))

/** A service that counts how often it stretches, which it does once the gate is open. */
const counting = (gate: Effect.Effect<void> = Effect.void) => {
  const count = { stretched: 0 }
  const own = Crypto.of({
    ...crypto,
    stretch: (...given) =>
      Effect.zipRight(
        gate,
        Effect.suspend(() => {
          count.stretched++
          return crypto.stretch(...given)
        })
      )
  })
  return { count, own }
}

const generated = FastCheck.oneof(
  FastCheck.stringMatching(/^[0-9a-f]{32}$/),
  FastCheck.stringMatching(/^[a-z2-7]{26}$/).filter((text) => /[2-7][a-z]/.test(text))
).filter((text) => new Set(text).size >= 8)

describe("a tunnel key", () => {
  it.prop(
    "that a person may have chosen has another pre-shared key for each address, the same on both sides",
    [FastCheck.string({ minLength: 1, maxLength: 31 }), FastCheck.integer({ min: 1, max: 65_534 })],
    ([text, port]) => {
      const [ours, theirs] = [keyOf(text), keyOf(text)]
      const salt = saltOf("server", port)
      assert.isTrue(Option.isNone(ours.find(salt)))
      assert.deepStrictEqual(derive(ours, salt), derive(theirs, salt))
      assert.notDeepEqual(derive(ours, salt), derive(ours, saltOf("server", port + 1)))
      assert.notDeepEqual(derive(ours, salt), derive(keyOf(`${text}.`), salt))
    }
  )

  it.prop("that a generator made is not stretched, and has one pre-shared key", [generated], ([text]) => {
    const { count, own } = counting()
    const key = keyOf(text, own)
    assert.deepStrictEqual(derive(key, saltOf("one")), derive(key, saltOf("two")))
    assert.isTrue(Option.isSome(key.find(saltOf("three"))))
    assert.strictEqual(count.stretched, 0)
    assert.notDeepEqual(derive(key, saltOf("one")), derive(keyOf(`${text}.`), saltOf("one")))
  })

  it.each([
    ["", false],
    ["my-key", true],
    ["0123456789abcdef0123456789abcde", true],
    ["0123456789abcdef0123456789abcdef", false],
    ["0123456789ABCDEF0123456789ABCDEF", true],
    ["01234560123456012345601234560123", true],
    ["k5zq3m7x2abcdefghijklmnopq", false],
    ["mylongpassphrasefortunnels", true],
    ["mypassphrasefortunnels2345", true],
    ["correct horse battery staple, and then some", true]
  ])("%j is stretched: %s", (text, stretched) => {
    assert.strictEqual(Option.isNone(keyOf(text).find(saltOf("server"))), stretched)
  })

  it.effect("is stretched once for callers at the same time, also when the first of them is interrupted", () =>
    Effect.gen(function* () {
      const gate = yield* Effect.makeLatch()
      const { count, own } = counting(gate.await)
      const key = keyOf("key", own)
      const salt = saltOf("server")
      const first = yield* Effect.fork(key.stretch(salt))
      yield* Effect.yieldNow()
      const others = yield* Effect.fork(Effect.all([key.stretch(salt), key.stretch(salt)], { concurrency: 2 }))
      yield* Effect.yieldNow()
      first.unsafeInterruptAsFork(first.id())
      yield* Effect.yieldNow()
      yield* gate.open
      const keys = yield* others
      assert.deepStrictEqual(keys.map(Redacted.value), [derive(keyOf("key"), salt), derive(keyOf("key"), salt)])
      assert.strictEqual(count.stretched, 1)
    })
  )

  it("remembers a limited number of salts, the newest", () => {
    const key = keyOf("key")
    const salts = Array.from({ length: TunnelKey.maxSalts + 10 }, (_, n) => saltOf("server", n))
    for (const salt of salts) derive(key, salt)
    assert.deepStrictEqual(key.salts(), salts.slice(10))
  })

  it("does not appear when it is printed", () => {
    const key = keyOf("secret text")
    derive(key, saltOf("server"))
    assert.notInclude(JSON.stringify(key), "secret text")
  })
})

describe("a salt", () => {
  it("is the same for a name in any case, and another for another host or port", () => {
    assert.strictEqual(saltOf("Server.Example"), saltOf("server.example"))
    assert.strictEqual(new Set([saltOf("a"), saltOf("b"), saltOf("a", 2), saltOf("::1")]).size, 4)
    assert.match(saltOf("a"), /^[0-9a-f]{32}$/)
  })
})
