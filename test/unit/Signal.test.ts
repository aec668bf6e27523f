import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Address from "../../src/core/Address.js"
import * as Signal from "../../src/wire/Signal.js"
import { runs } from "../Runs.js"

const encode = Schema.encodeSync(Signal.FromText)
const decode = Schema.decodeEither(Signal.FromText)

const host = FastCheck.oneof(FastCheck.ipV4(), FastCheck.ipV6(), FastCheck.domain())
const address = FastCheck.tuple(host, FastCheck.integer({ min: 0, max: 65535 })).map(([host, port]) =>
  Address.make(host, port)
)
const id = FastCheck.integer({ min: 0, max: 0xffffffff }).map((n) =>
  Signal.ConnectionId.make(n.toString(16).padStart(8, "0"))
)
const signal: FastCheck.Arbitrary<Signal.Signal> = FastCheck.oneof(
  FastCheck.constantFrom(new Signal.Flush(), new Signal.Ping(), new Signal.Pong()),
  FastCheck.integer({ min: 1, max: 1e6 }).map((count) => new Signal.Demand({ count })),
  id.map((id) => new Signal.Withdrawn({ id })),
  id.map((id) => new Signal.Refused({ id })),
  FastCheck.tuple(FastCheck.constantFrom("Refused", "TimedOut,Unreachable"), FastCheck.nat(100_000)).map(
    ([why, millis]) => new Signal.Targets({ why: Option.some(why), millis })
  ),
  FastCheck.constant(new Signal.Targets({ why: Option.none(), millis: 0 })),
  FastCheck.record({ id, sent: FastCheck.boolean() }).map((fields) => new Signal.Silent(fields)),
  FastCheck.record({
    max: FastCheck.integer({ min: 1, max: 65535 }),
    receiver: FastCheck.constantFrom("server" as const, "client" as const),
    tls: FastCheck.constantFrom("plain" as const, "self-signed" as const, "verified" as const),
    fingerprint: FastCheck.hexaString({ minLength: 64, maxLength: 64 })
  }).map(
    ({ fingerprint, ...terms }) =>
      new Signal.Terms({
        ...terms,
        fingerprint: terms.tls === "self-signed" ? Option.some(fingerprint) : Option.none()
      })
  ),
  FastCheck.record({
    protocol: FastCheck.constantFrom("tcp" as const, "udp" as const),
    id,
    visitor: address,
    entry: FastCheck.option(address).map(Option.fromNullable)
  }).map((fields) => new Signal.Launch(fields))
)

describe("Signal.FromText", () => {
  it.prop("decodes what it encodes", [signal], ([signal]) => {
    assert.deepStrictEqual(decode(encode(signal)), Either.right(signal))
  })

  it.prop("ignores unknown parameters", [signal, FastCheck.stringMatching(/^[a-z]{2,9}$/)], ([signal, name]) => {
    FastCheck.pre(!["fp", "from", "sent", "to"].includes(name))
    assert.deepStrictEqual(decode(Signal.withParameter(encode(signal), name, "x")), Either.right(signal))
  })

  it.prop(
    "decodes or refuses any text, and never throws",
    [FastCheck.oneof(FastCheck.string(), FastCheck.webUrl({ withFragments: true }))],
    ([text]) => {
      assert.isTrue(Either.isEither(decode(text)))
    }
  )

  it.prop(
    "agrees with fromText and toText",
    [
      FastCheck.oneof(
        signal.map(Signal.toText),
        FastCheck.tuple(signal.map(Signal.toText), FastCheck.nat(99), FastCheck.char()).map(
          ([text, at, char]) => text.slice(0, at) + char + text.slice(at + 1)
        ),
        FastCheck.webUrl({ withFragments: true, withQueryParameters: true })
      ),
      signal
    ],
    ([text, signal]) => {
      assert.deepStrictEqual(Either.getRight(Signal.fromText(text)), Either.getRight(decode(text)))
      assert.strictEqual(Signal.toText(signal), encode(signal))
    },
    { fastCheck: { numRuns: runs(180, 1000) } }
  )

  it("decodes an unknown kind to Unknown", () => {
    assert.deepStrictEqual(decode("//whatever?x=1#zz"), Either.right(new Signal.Unknown({ kind: "zz" })))
  })

  it("accepts a launch with the visitor as authority, as NodePass 1.x writes it", () => {
    const launch = new Signal.Launch({
      protocol: "udp",
      id: Signal.ConnectionId.make("9f3c11aa"),
      visitor: Address.make("::1", 53),
      entry: Option.none()
    })
    assert.deepStrictEqual(decode("np://[::1]:53/9f3c11aa#2"), Either.right(launch))
    assert.deepStrictEqual(decode("//9f3c11aa?from=[::1]:53#2"), Either.right(launch))
  })

  it.each([
    "//9f3c11a#1",
    "//9f3c11aa#1",
    "//9F3C11AA?from=1.2.3.4:5#1",
    "np://0/-#0",
    "np://65536/-#0",
    "np://1/-#3",
    "np://1/-#1",
    "np://1/-?fp=abc#1",
    "?n=0#d",
    "?n=x#d"
  ])("refuses %s", (text) => assert.isTrue(Either.isLeft(decode(text))))
})
