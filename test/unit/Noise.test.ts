import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Crypto } from "../../src/transport/Crypto.js"
import * as NodeCrypto from "../../src/node/process/NodeCrypto.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as Noise from "../../src/wire/Noise.js"
import { utf8 } from "../Bytes.js"

interface Vector {
  readonly protocol_name: string
  readonly init_prologue: string
  readonly init_psks: readonly [string]
  readonly init_ephemeral: string
  readonly resp_ephemeral: string
  readonly handshake_hash: string
  readonly messages: ReadonlyArray<{ readonly payload: string; readonly ciphertext: string }>
}

const fixture = Path.join(import.meta.dirname, "../fixtures/noise-nnpsk0.json")
const vector: Vector = JSON.parse(Fs.readFileSync(fixture, "utf8"))
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

const node = Effect.runSync(Effect.provide(Crypto, NodeCrypto.layer))
const simulated = Effect.runSync(Effect.provide(Crypto, SimCrypto.layer(1)))
const psk = Redacted.make(new Uint8Array(32).fill(7))
const prologue = utf8("prologue")
const fresh = (crypto: Crypto["Type"]) => Effect.runSync(Effect.provideService(Noise.ephemeral, Crypto, crypto))

/** Both sides, up to the end of the handshake. */
const handshake = (crypto: Crypto["Type"]) => {
  const initiated = Noise.initiate(crypto, { psk, prologue, ephemeral: fresh(crypto), payload: utf8("hello") })
  const read = Option.getOrThrow(Noise.read(crypto, { psk, prologue }, initiated.message))
  const answered = Option.getOrThrow(read.answer(fresh(crypto), utf8("welcome")))
  return { initiated, read, answered, agreed: Option.getOrThrow(initiated.read(answered.message)) }
}

const flipped = (message: Uint8Array, bit: number) => {
  const copy = Uint8Array.from(message)
  const at = (bit >> 3) % copy.length
  copy[at] = (copy[at] ?? 0) ^ (1 << (bit & 7))
  return copy
}

describe("Noise", () => {
  it("writes and reads the messages of the public test vector", () => {
    assert.strictEqual(vector.protocol_name, "Noise_NNpsk0_25519_ChaChaPoly_SHA256")
    const options = { psk: Redacted.make(bytes(vector.init_psks[0])), prologue: bytes(vector.init_prologue) }
    const [first, second, ...others] = vector.messages
    const ephemeral = node.keyPair(bytes(vector.init_ephemeral))
    const initiated = Noise.initiate(node, { ...options, ephemeral, payload: bytes(first?.payload ?? "") })
    assert.strictEqual(hex(initiated.message), first?.ciphertext)
    const read = Option.getOrThrow(Noise.read(node, options, initiated.message))
    assert.strictEqual(hex(read.payload), first?.payload)
    const answered = Option.getOrThrow(
      read.answer(node.keyPair(bytes(vector.resp_ephemeral)), bytes(second?.payload ?? ""))
    )
    assert.strictEqual(hex(answered.message), second?.ciphertext)
    const agreed = Option.getOrThrow(initiated.read(answered.message))
    assert.strictEqual(hex(agreed.payload), second?.payload)
    assert.strictEqual(hex(Redacted.value(agreed.secret)), hex(Redacted.value(answered.secret)))
    for (const [index, { ciphertext, payload }] of others.entries()) {
      const [from, to] = index % 2 === 0 ? [agreed.ciphers, answered.ciphers] : [answered.ciphers, agreed.ciphers]
      assert.strictEqual(hex(from.sending.encrypt(bytes(payload))), ciphertext)
      assert.strictEqual(hex(Option.getOrThrow(to.receiving.decrypt(bytes(ciphertext)))), payload)
    }
  })

  describe.each([
    ["NodeCrypto", node],
    ["SimCrypto", simulated]
  ] as const)("with %s", (_, crypto) => {
    it.prop("refuses both messages after any bit was flipped", [FastCheck.nat(), FastCheck.nat()], ([one, two]) => {
      const { answered, initiated } = handshake(crypto)
      assert.isTrue(Option.isNone(Noise.read(crypto, { psk, prologue }, flipped(initiated.message, one))))
      assert.isTrue(Option.isNone(initiated.read(flipped(answered.message, two))))
    })

    it("refuses another pre-shared key and another prologue before any Diffie-Hellman", () => {
      let agreements = 0
      const counted: Crypto["Type"] = {
        ...crypto,
        keyPair: (bytes) => {
          const pair = crypto.keyPair(bytes)
          return {
            ...pair,
            agree: (other) => {
              agreements++
              return pair.agree(other)
            }
          }
        }
      }
      const { message } = handshake(counted).initiated
      const before = agreements
      const other = Redacted.make(new Uint8Array(32).fill(8))
      assert.isTrue(Option.isNone(Noise.read(counted, { psk: other, prologue }, message)))
      assert.isTrue(Option.isNone(Noise.read(counted, { psk, prologue: utf8("another") }, message)))
      assert.isTrue(Option.isNone(Noise.read(counted, { psk, prologue }, message.subarray(0, 40))))
      assert.isTrue(Option.isSome(Noise.read(counted, { psk, prologue }, message)))
      assert.strictEqual(agreements, before)
    })

    it("refuses a public key that makes every shared secret the same", () => {
      const zero = { publicKey: new Uint8Array(32), agree: () => Option.some(new Uint8Array(32)) }
      const { message } = Noise.initiate(crypto, { psk, prologue, ephemeral: zero, payload: utf8("hello") })
      const read = Option.getOrThrow(Noise.read(crypto, { psk, prologue }, message))
      assert.isTrue(Option.isNone(read.answer(fresh(crypto), utf8("welcome"))))
    })

    it("has fresh keys in each handshake, and sends no payload in clear", () => {
      const handshakes = Array.from({ length: 20 }, () => handshake(crypto))
      const secrets = handshakes.map(({ agreed }) => hex(Redacted.value(agreed.secret)))
      const messages = handshakes.map(({ agreed }) => hex(agreed.ciphers.sending.encrypt(utf8("same"))))
      assert.strictEqual(new Set([...secrets, ...messages]).size, 40)
      for (const { answered, initiated } of handshakes) {
        assert.notInclude(hex(initiated.message), hex(utf8("hello")))
        assert.notInclude(hex(answered.message), hex(utf8("welcome")))
      }
    })

    it.prop(
      "decrypts each message once, in order, and after a new key on both sides",
      [FastCheck.array(FastCheck.constantFrom("send", "rekey", "repeat", "flip"), { maxLength: 30 })],
      ([steps]) => {
        const { agreed, answered } = handshake(crypto)
        const [ours, theirs] = [agreed.ciphers.sending, answered.ciphers.receiving]
        let last: Uint8Array = new Uint8Array(16)
        for (const [n, step] of steps.entries()) {
          if (step === "rekey") {
            ours.rekey()
            theirs.rekey()
          } else if (step === "repeat") assert.isTrue(Option.isNone(theirs.decrypt(last)))
          else {
            last = ours.encrypt(utf8(String(n)))
            if (step === "flip") assert.isTrue(Option.isNone(theirs.decrypt(flipped(last, n * 11))))
            assert.deepStrictEqual(Option.map(theirs.decrypt(last), hex), Option.some(hex(utf8(String(n)))))
          }
        }
      }
    )

    it("does not decrypt with the next key what the previous one encrypted, nor the other way round", () => {
      const { agreed, answered } = handshake(crypto)
      const [before, after] = [agreed.ciphers.sending.encrypt(utf8("a")), agreed.ciphers.sending]
      after.rekey()
      const next = after.encrypt(utf8("b"))
      assert.isTrue(Option.isNone(answered.ciphers.receiving.decrypt(next)))
      answered.ciphers.receiving.rekey()
      assert.isTrue(Option.isNone(answered.ciphers.receiving.decrypt(before)))
    })
  })
})
