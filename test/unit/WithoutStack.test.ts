import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Address from "../../src/core/Address.js"
import { withoutStack } from "../../src/core/WithoutStack.js"
import { HandshakeError } from "../../src/wire/HandshakeError.js"

class Plain extends Schema.TaggedError<Plain>()("Plain", { port: Schema.Int }) {}
class Stackless extends withoutStack(Schema.TaggedError<Stackless>()("Stackless", { port: Schema.Int })) {
  override get message(): string {
    return `port ${this.port}`
  }
}

describe("withoutStack", () => {
  it("makes errors of the class, with their message and fields, and no frame in the stack", () => {
    const error = new Stackless({ port: 1 })
    assert.instanceOf(error, Stackless)
    assert.instanceOf(error, Error)
    assert.deepStrictEqual([error._tag, error.port, error.message], ["Stackless", 1, "port 1"])
    assert.notMatch(String(error.stack), /\n\s+at /)
    assert.match(String(new Plain({ port: 1 }).stack), /\n\s+at /)
  })

  it("decodes as the class", () => {
    const decoded = Schema.decodeEither(Stackless)({ _tag: "Stackless", port: 2 })
    assert.instanceOf(Either.getOrThrow(decoded), Stackless)
  })

  it("leaves other errors with a stack, also after invalid fields", () => {
    assert.throws(() => new Stackless({ port: 0.5 }))
    assert.match(String(new Error("other").stack), /\n\s+at /)
  })

  it("is what a peer that is refused at its handshake causes", () => {
    const error = new HandshakeError({ reason: "Malformed", peer: Address.make("127.0.0.1", 1) })
    assert.notMatch(String(error.stack), /\n\s+at /)
  })
})
