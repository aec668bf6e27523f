import { assert, describe, it } from "@effect/vitest"
import * as Option from "effect/Option"
import * as TlsMode from "../../src/core/TlsMode.js"

describe("TlsMode", () => {
  it("the digits of URLs and terms count from weakest to strongest", () => {
    const modes = ["0", "1", "2", "3", "", "01"].map(TlsMode.fromDigit)
    assert.deepStrictEqual(modes, [
      Option.some("plain"),
      Option.some("self-signed"),
      Option.some("verified"),
      Option.none(),
      Option.none(),
      Option.none()
    ])
    for (const mode of TlsMode.TlsMode.literals) {
      assert.deepStrictEqual(TlsMode.fromDigit(TlsMode.toDigit(mode)), Option.some(mode))
      assert.isFalse(TlsMode.isWeaker(mode, mode))
    }
    assert.isTrue(TlsMode.isWeaker("plain", "self-signed"))
    assert.isTrue(TlsMode.isWeaker("self-signed", "verified"))
    assert.isFalse(TlsMode.isWeaker("verified", "plain"))
  })
})
