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

it("a datagram that takes long to arrive is no sign of a dead pool connection", () => {
  const broken = PairWorld.run({
    seed: 0,
    link: { latency: 20, jitter: 0, window: 1, segment: 100 },
    server: {
      role: "server",
      key: "",
      tunnel: ":10101",
      targets: ["0.0.0.0:8080"],
      query: [
        ["mode", "1"],
        ["streams", "0"]
      ]
    },
    client: {
      role: "client",
      key: "",
      tunnel: "10.0.0.1:10101",
      targets: ["10.0.1.1:80"],
      query: [
        ["mode", "2"],
        ["min", "1"]
      ]
    },
    formatted: false,
    receiver: "server",
    lives: ["alive"],
    tcp: [],
    udp: [
      { arrivesMillis: 0, sizes: [1721, 2245], gapMillis: 10 },
      { arrivesMillis: 1000, sizes: [2884], gapMillis: 10 }
    ]
  })
  assert.deepStrictEqual(broken, [])
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
