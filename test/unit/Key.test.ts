import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto } from "../../src/transport/Crypto.js"
import * as Key from "../../src/wire/Key.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import { runs } from "../Runs.js"
import { utf8 } from "../Bytes.js"

const crypto = Effect.runSync(Effect.provide(Crypto, SimCrypto.layer(1)))
const stretched = (key: string) =>
  Effect.runSync(Effect.provideService(Key.stretch(Option.some(Redacted.make(key))), Crypto, crypto))
const nonces = { client: "00".repeat(16), server: "11".repeat(16) }
const session = (key: string, over?: Partial<typeof nonces>) =>
  Key.session(crypto, stretched(key), { ...nonces, ...over })
const directions = ["client", "server", "join", "admit"] as const
const sealOf = (keys: Key.SessionKeys, direction: (typeof directions)[number]): Key.Seal =>
  direction === "join" || direction === "admit" ? keys[direction](0) : keys[direction]

const line = FastCheck.stringMatching(/^\/\/[a-z0-9]{1,20}(\?[a-z]=[a-z0-9]{0,9})?#[a-z0-9]{1,9}$/)
const nonce = FastCheck.stringMatching(/^[0-9a-f]{32}$/)
const direction = FastCheck.constantFrom(...directions)

describe("a seal", () => {
  it.prop("opens to the line that was sealed", [line, FastCheck.string()], ([line, key]) => {
    const seal = Key.hello(crypto, stretched(key))
    assert.deepStrictEqual(seal.open(seal.seal(line)), Option.some(line))
  })

  it.prop(
    "is opened by no other key, and by no seal of another direction",
    [line, FastCheck.string(), direction],
    ([line, key, direction]) => {
      const keys = session(key)
      const sealed = sealOf(keys, direction).seal(line)
      const others = [
        ...directions.filter((other) => other !== direction).map((other) => sealOf(keys, other)),
        sealOf(session(`${key}.`), direction),
        Key.hello(crypto, stretched(key))
      ]
      for (const other of others) assert.isTrue(Option.isNone(other.open(sealed)))
    }
  )

  it.prop(
    "does not open after one character was changed, added or removed",
    [line, FastCheck.nat(), FastCheck.constantFrom(0, 1), FastCheck.stringMatching(/^[ -~]?$/)],
    ([line, at, drop, put]) => {
      const { client } = session("key")
      const sealed = client.seal(line)
      const place = at % sealed.length
      const altered = sealed.slice(0, place) + put + sealed.slice(place + drop)
      assert.isTrue(altered === sealed || Option.isNone(client.open(altered)))
    },
    { fastCheck: { numRuns: runs(600, 3000) } }
  )

  // Found by the law above with seed -1724611591: the seal does not cover the character before `mac`.
  it("does not open after the `?` before `mac` became a `&`, or the reverse", () => {
    const { client } = session("key")
    const [bare, withQuery] = [client.seal("//x#a"), client.seal("//x?y=z#a")]
    for (const altered of [bare.replace("?mac=", "&mac="), withQuery.replace("&mac=", "?mac=")]) {
      assert.isTrue(Option.isNone(client.open(altered)), altered)
    }
  })

  it.prop("does not open with the other mark before `mac`, whatever the line", [line], ([line]) => {
    const { client } = session("key")
    const sealed = client.seal(line)
    const altered = sealed.replace(/[?&]mac=/, (mark) => (mark.startsWith("?") ? "&mac=" : "?mac="))
    assert.isTrue(Option.isNone(client.open(altered)))
  })

  it.prop("refuses any text, and never throws", [FastCheck.fullUnicodeString()], ([text]) => {
    assert.isTrue(Option.isNone(session("key").client.open(text)))
  })
})

describe("the keys of a session", () => {
  it.prop(
    "are the same on both sides",
    [FastCheck.string(), nonce, nonce, direction, line],
    ([key, client, server, direction, line]) => {
      const [ours, theirs] = [session(key, { client, server }), session(key, { client, server })]
      assert.strictEqual(ours.id, theirs.id)
      assert.deepStrictEqual(sealOf(theirs, direction).open(sealOf(ours, direction).seal(line)), Option.some(line))
    }
  )

  it.prop(
    "differ for any other key, and for any other nonce of either side",
    [FastCheck.string(), FastCheck.string(), nonce, direction, line],
    ([key, otherKey, other, direction, line]) => {
      FastCheck.pre(key !== otherKey && other !== nonces.client && other !== nonces.server)
      const keys = session(key)
      const swapped = { client: nonces.server, server: nonces.client }
      for (const others of [
        session(otherKey),
        session(key, { client: other }),
        session(key, { server: other }),
        session(key, swapped)
      ]) {
        assert.notStrictEqual(others.id, keys.id)
        assert.isTrue(Option.isNone(sealOf(others, direction).open(sealOf(keys, direction).seal(line))))
      }
    }
  )

  it.prop(
    "of pool connections differ between blocks of counts, and are the same on both sides in any order of use",
    [FastCheck.array(FastCheck.nat(10 * Key.blockLength), { minLength: 2, maxLength: 9 }), line],
    ([counts, line]) => {
      const [ours, theirs] = [session("key"), session("key")]
      for (const count of counts) {
        const sealed = ours.join(count).seal(line)
        for (const other of counts.toReversed()) {
          const sameBlock = Math.floor(count / Key.blockLength) === Math.floor(other / Key.blockLength)
          assert.strictEqual(Option.isSome(theirs.join(other).open(sealed)), sameBlock)
          assert.isTrue(Option.isNone(theirs.admit(other).open(sealed)))
        }
      }
    }
  )

  it.prop(
    "of successive rotations are the same on both sides, and none opens the lines of another",
    [line],
    ([line]) => {
      const chain = (seal: Key.Seal) => {
        const seals = [seal]
        for (let last = seal; seals.length < 5; seals.push(last)) last = last.next()
        return seals
      }
      const theirs = chain(session("key").client)
      for (const [at, seal] of chain(session("key").client).entries()) {
        for (const [other, opener] of theirs.entries()) {
          assert.strictEqual(Option.isSome(opener.open(seal.seal(line))), at === other)
        }
      }
    }
  )

  it.prop("have a name of 16 hex digits that is part of no key", [FastCheck.string()], ([key]) => {
    const hmac = (key: Uint8Array, label: string) => crypto.hmac(key, utf8(label))
    const tunnel = Redacted.value(stretched(key))
    const secret = hmac(tunnel, `session ${nonces.client} ${nonces.server}`)
    const secrets = [tunnel, hmac(tunnel, "hello"), secret, ...directions.map((label) => hmac(secret, label))]
    const { id } = session(key)
    assert.match(id, /^[0-9a-f]{16}$/)
    for (const each of secrets) assert.notInclude(Encoding.encodeHex(each), id)
  })

  it("do not appear when they are printed", () => {
    const tunnel = stretched("key")
    const text = JSON.stringify([tunnel, session("key"), Key.hello(crypto, tunnel)])
    assert.notInclude(text, Encoding.encodeHex(Redacted.value(tunnel)).slice(0, 8))
    assert.notMatch(text, /\d+,\d+,\d+/)
  })
})

describe("a nonce", () => {
  it("is 32 hex digits, and different each time", () => {
    const drawn = Effect.runSync(Effect.provideService(Effect.replicateEffect(Key.nonce, 1000), Crypto, crypto))
    assert.strictEqual(new Set(drawn).size, 1000)
    for (const each of drawn) assert.match(each, /^[0-9a-f]{32}$/)
  })
})
