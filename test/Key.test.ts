import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Address from "../src/Address.js"
import { Crypto } from "../src/Crypto.js"
import * as Dialect from "../src/Dialect.js"
import * as Frame from "../src/Frame.js"
import * as Key from "../src/Key.js"
import * as Signal from "../src/Signal.js"
import * as SimCrypto from "../src/testing/SimCrypto.js"

const crypto = Effect.runSync(Effect.provide(Crypto, SimCrypto.layer(1)))
const stretched = (key: string) =>
  Effect.runSync(Effect.provideService(Key.stretch(Option.some(Redacted.make(key))), Crypto, crypto))
const session = (key: string, client = "00".repeat(16), server = "11".repeat(16)) =>
  Key.session(crypto, stretched(key), { client, server })

const line = FastCheck.stringMatching(/^\/\/[a-z0-9]{1,20}(\?[a-z]=[a-z0-9]{0,9})?#[a-z0-9]{1,9}$/)

describe("a seal", () => {
  it.prop("opens to the line that was sealed", [line, FastCheck.string()], ([line, key]) => {
    const seal = Key.hello(crypto, stretched(key))
    assert.deepStrictEqual(seal.open(seal.seal(line)), Option.some(line))
  })

  it.prop("no other key opens it, nor the seal of another direction", [line, FastCheck.string()], ([line, key]) => {
    const { admit, client, join, server } = session(key)
    const others = [admit, join, server, session(`${key}.`).client, session(key, "22".repeat(16)).client]
    for (const other of others) assert.isTrue(Option.isNone(other.open(client.seal(line))))
    assert.isTrue(Option.isSome(session(key).client.open(client.seal(line))))
  })

  it.prop(
    "no line opens that differs in a character",
    [line, FastCheck.nat(), FastCheck.stringMatching(/^[ -~]$/)],
    ([line, at, character]) => {
      const { client } = session("key")
      const sealed = client.seal(line)
      const altered = sealed.slice(0, at % sealed.length) + character + sealed.slice((at % sealed.length) + 1)
      assert.isTrue(altered === sealed || Option.isNone(client.open(altered)))
    }
  )

  it.prop("refuses any text, and never throws", [FastCheck.string()], ([text]) => {
    assert.isTrue(Option.isNone(session("key").client.open(text)))
  })
})

const launch = (n: number) =>
  Signal.makeLaunch({
    protocol: "tcp",
    id: Signal.ConnectionId.make(n.toString(16).padStart(8, "0")),
    visitor: Address.make("198.51.100.1", 5)
  })
const channels = () => {
  const { client, server } = session("key")
  return [
    Dialect.native(Dialect.makeChannel({ outgoing: client, incoming: server })),
    Dialect.native(Dialect.makeChannel({ outgoing: server, incoming: client }))
  ] as const
}
const linesOf = (dialect: Dialect.Dialect, count: number) =>
  Frame.toText(dialect.encode(Array.from({ length: count }, (_, n) => new Signal.Demand({ count: n + 1 }))))
    .trimEnd()
    .split("\n")
const utf8 = new TextEncoder()
const countsHeard = (dialect: Dialect.Dialect, lines: ReadonlyArray<string>) =>
  lines.flatMap((line) => {
    const signal = dialect.decode(utf8.encode(line))
    return Either.isRight(signal) && signal.right._tag === "Demand" ? [signal.right.count] : []
  })

describe("the native dialect", () => {
  it("every signal arrives as it was sent", () => {
    const [ours, theirs] = channels()
    const signals = [new Signal.Ping(), new Signal.Flush(), launch(7), new Signal.Keep({ count: 3 })]
    const lines = Frame.toText(ours.encode(signals)).trimEnd().split("\n")
    assert.deepStrictEqual(
      lines.map((line) => JSON.stringify(Either.getOrThrow(theirs.decode(utf8.encode(line))))),
      signals.map((signal) => JSON.stringify(signal))
    )
  })

  it.prop(
    "what is injected, repeated or put in another order is never heard, and what is heard is in order",
    [
      FastCheck.integer({ min: 1, max: 12 }),
      FastCheck.array(FastCheck.oneof(FastCheck.nat(20), FastCheck.string()), { maxLength: 30 })
    ],
    ([count, edits]) => {
      const [ours, theirs] = channels()
      const lines = linesOf(ours, count)
      const heard = countsHeard(
        theirs,
        edits.map((edit) => (typeof edit === "string" ? edit : (lines[edit] ?? "#d")))
      )
      assert.deepStrictEqual(
        heard,
        heard.map((_, n) => n + 1)
      )
    }
  )

  it.prop(
    "a line taken out shows at the next one",
    [FastCheck.integer({ min: 2, max: 12 }), FastCheck.nat()],
    ([count, at]) => {
      const [ours, theirs] = channels()
      const lines = linesOf(ours, count)
      const gap = at % (count - 1)
      const results = lines.filter((_, n) => n !== gap).map((line) => theirs.decode(utf8.encode(line)))
      const refused = results.flatMap((result) => (Either.isLeft(result) ? [result.left.reason] : []))
      assert.strictEqual(refused[0], "Lost")
    }
  )
})
