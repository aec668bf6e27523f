import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import * as PairWorld from "./worlds/PairWorld.js"
import * as WrongUrl from "./worlds/WrongUrl.js"
import { runs } from "../Runs.js"

describe("a pair of URLs that fit each other", () => {
  it.prop(
    "serves TCP and UDP visitors whole, in order and once, and leaves nothing open",
    [PairWorld.pair],
    ([pair]) => {
      assert.strictEqual(PairWorld.run(pair).join("; "), "")
    },
    { fastCheck: { numRuns: runs(9, 40) } }
  )
})

const side = PairWorld.pair.chain(({ client, server }) =>
  server === undefined ? FastCheck.constant(client) : FastCheck.constantFrom(client, server)
)
const wrong = side.chain(WrongUrl.from)

describe("a URL with one thing wrong in it", () => {
  it.prop(
    "is refused in one line that begins with the part",
    [wrong],
    ([{ part, text }]) => {
      const { message } = Either.getOrThrow(Either.flip(TunnelUrl.parse(text)))
      assert.match(message, /^[^\p{Cc}\u2028\u2029]+(: expected |; \w+:\/\/ accepts )[^\p{Cc}\u2028\u2029]+$/u)
      const starts = [`${part}=`, `${part} is missing:`, `${part} is a `, `${part} is not a parameter`]
      assert.isTrue(
        starts.some((start) => message.startsWith(start)),
        `${part}: ${message}`
      )
    },
    { fastCheck: { numRuns: runs(180, 1000) } }
  )
})
