import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as GoDuration from "../../src/core/GoDuration.js"

const encode = Schema.encodeSync(GoDuration.FromText)
const decode = Schema.decodeEither(GoDuration.FromText)

const nanos = FastCheck.oneof(
  FastCheck.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
  FastCheck.bigInt({ min: 0n, max: 10n ** 10n }),
  FastCheck.integer({ min: 0, max: 10 ** 9 }).map((millis) => BigInt(millis) * 1_000_000n)
)
const duration = nanos.map((nanos) =>
  nanos % 1_000_000n === 0n && nanos < 10n ** 21n ? Duration.millis(Number(nanos / 1_000_000n)) : Duration.nanos(nanos)
)
const number = FastCheck.stringMatching(/^\d{1,4}(\.\d{1,4})?$/)
const unit = FastCheck.constantFrom("h", "m", "s", "ms", "us", "µs", "ns")
const written = FastCheck.array(FastCheck.tuple(number, unit), { minLength: 1, maxLength: 5 }).map((parts) =>
  parts.map((part) => part.join("")).join("")
)

describe("GoDuration", () => {
  it.prop("decoding undoes encoding, to the nanosecond", [duration], ([duration]) => {
    assert.deepStrictEqual(decode(encode(duration)), Either.right(duration))
  })

  it.prop("prints equal durations the same, however they were written", [written], ([text]) => {
    const once = encode(Either.getOrThrow(decode(text)))
    assert.strictEqual(encode(Either.getOrThrow(decode(once))), once)
  })

  it.prop("prints no zero parts", [duration], ([duration]) => {
    assert.match(
      encode(duration),
      /^0$|^([1-9]\d*h)?([1-9]\d*m)?((0\.\d*[1-9]|[1-9]\d*(\.\d*[1-9])?)s)?$|^[1-9][\d.]*[mun]s$/
    )
  })

  it.prop("decodes or refuses any text, and never throws", [FastCheck.string()], ([text]) => {
    assert.isTrue(Either.isEither(decode(text)))
  })

  it.each([
    ["0", "0", 0],
    ["0s", "0", 0],
    ["30s", "30s", 30_000],
    ["5m", "5m", 300_000],
    ["600s", "10m", 600_000],
    ["1h30m", "1h30m", 5_400_000],
    ["90m", "1h30m", 5_400_000],
    ["1h0m5s", "1h5s", 3_605_000],
    ["250ms", "250ms", 250],
    ["1.5s", "1.5s", 1500],
    [".5m", "30s", 30_000],
    ["61500ms", "1m1.5s", 61_500],
    ["1500µs", "1.5ms", 1.5],
    ["7ns", "7ns", 0.000007]
  ])("%s is printed as %s", (text, printed, millis) => {
    const duration = Either.getOrThrow(decode(text))
    assert.strictEqual(Duration.toMillis(duration), millis)
    assert.strictEqual(encode(duration), printed)
  })

  it.each(["", "5", "s", "-5s", "+5s", "5 s", " 5s", "5S", "1d", "1.s2", "..5s", ".s", "1e3s", "5m3", "∞", "Infinity"])(
    "refuses %j",
    (text) => {
      assert.isTrue(Option.isNone(GoDuration.fromText(text)))
    }
  )

  it("accepts Go's longest duration, and none longer", () => {
    assert.isTrue(Option.isSome(GoDuration.fromText("9223372036854775807ns")))
    assert.isTrue(Option.isNone(GoDuration.fromText("9223372036854775808ns")))
    assert.isTrue(Option.isNone(GoDuration.fromText("99999999999999999999h")))
  })

  it("does not encode an infinite duration, and prints it as forever", () => {
    assert.isTrue(Either.isLeft(Schema.encodeEither(GoDuration.FromText)(Duration.infinity)))
    assert.strictEqual(GoDuration.toText(Duration.infinity), "forever")
  })
})
