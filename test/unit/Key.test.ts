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
const session = (secret: string) => Key.session(crypto, Redacted.make(utf8(secret)))
const directions = ["join", "admit"] as const

const line = FastCheck.stringMatching(/^\/\/[a-z0-9]{1,20}(\?[a-z]=[a-z0-9]{0,9})?#[a-z0-9]{1,9}$/)
const direction = FastCheck.constantFrom(...directions)

describe("a seal", () => {
  it.prop("opens to the line that was sealed", [line, FastCheck.string(), direction], ([line, secret, direction]) => {
    const seal = session(secret)[direction](0)
    assert.deepStrictEqual(seal.open(seal.seal(line)), Option.some(line))
  })

  it.prop(
    "is opened by no other key, and by no seal of another direction",
    [line, FastCheck.string(), direction],
    ([line, secret, direction]) => {
      const keys = session(secret)
      const sealed = keys[direction](0).seal(line)
      const others = [
        ...directions.filter((other) => other !== direction).map((other) => keys[other](0)),
        session(`${secret}.`)[direction](0)
      ]
      for (const other of others) assert.isTrue(Option.isNone(other.open(sealed)))
    }
  )

  it.prop(
    "does not open after one character was changed, added or removed",
    [line, FastCheck.nat(), FastCheck.constantFrom(0, 1), FastCheck.stringMatching(/^[ -~]?$/)],
    ([line, at, drop, put]) => {
      const seal = session("key").join(0)
      const sealed = seal.seal(line)
      const place = at % sealed.length
      const altered = sealed.slice(0, place) + put + sealed.slice(place + drop)
      assert.isTrue(altered === sealed || Option.isNone(seal.open(altered)))
    },
    { fastCheck: { numRuns: runs(600, 3000) } }
  )

  // Found by the law above with seed -1724611591: the seal does not cover the character before `mac`.
  it("does not open after the `?` before `mac` became a `&`, or the reverse", () => {
    const seal = session("key").join(0)
    const [bare, withQuery] = [seal.seal("//x#a"), seal.seal("//x?y=z#a")]
    for (const altered of [bare.replace("?mac=", "&mac="), withQuery.replace("&mac=", "?mac=")]) {
      assert.isTrue(Option.isNone(seal.open(altered)), altered)
    }
  })

  it.prop("does not open with the other mark before `mac`, whatever the line", [line], ([line]) => {
    const seal = session("key").join(0)
    const sealed = seal.seal(line)
    const altered = sealed.replace(/[?&]mac=/, (mark) => (mark.startsWith("?") ? "&mac=" : "?mac="))
    assert.isTrue(Option.isNone(seal.open(altered)))
  })

  it.prop("refuses any text, and never throws", [FastCheck.fullUnicodeString()], ([text]) => {
    assert.isTrue(Option.isNone(session("key").join(0).open(text)))
  })
})

describe("the keys of a session", () => {
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

  it.prop("have a name of 16 hex digits that is part of no key", [FastCheck.string()], ([secret]) => {
    const hmac = (label: string) => crypto.hmac(utf8(secret), utf8(label))
    const { id } = session(secret)
    assert.match(id, /^[0-9a-f]{16}$/)
    for (const label of directions) assert.notInclude(Encoding.encodeHex(hmac(label)), id)
  })

  it("do not appear when they are printed", () => {
    const text = JSON.stringify(session("key"))
    assert.notInclude(text, "key")
    assert.notMatch(text, /\d+,\d+,\d+/)
  })
})
