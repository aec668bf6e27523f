import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { makeWorld, type World } from "../live/command/Nodepass.js"
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
    { fastCheck: { numRuns: runs(15, 40) } }
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
    { fastCheck: { numRuns: runs(300, 1000) } }
  )

  let world: World
  beforeEach(() => {
    world = makeWorld()
  })
  afterEach(() => world.close())

  // The ports are taken: whoever opened one would say so, or come as a visitor.
  it.each(["server", "client"] as const)(
    "is refused by check and by a run alike, which open nothing: %s",
    async (role) => {
      let visitors = 0
      const ends = [await world.listen(() => visitors++), await world.listen(() => visitors++)] as const
      const [tunnel, target] = ends.map(({ port }) => `127.0.0.1:${port}`)
      const url = { role, key: "k", tunnel: String(tunnel), targets: [String(target)], query: [["max", "9"]] as const }
      const right = role === "server" ? url : { ...url, query: [["min", "9"]] as const }
      for (const { text } of FastCheck.sample(WrongUrl.from(right), { numRuns: 3, seed: 3 })) {
        const { message } = Either.getOrThrow(Either.flip(TunnelUrl.parse(text)))
        const runs = [["check", text], [text]].map(async (args) => {
          const process = world.start(args)
          return { code: await process.ended, log: process.log(), out: process.out() }
        })
        const refused = { code: 2, log: `nodepass: ${message}\n`, out: "" }
        assert.deepStrictEqual(await Promise.all(runs), [refused, refused])
      }
      assert.strictEqual(visitors, 0)
    }
  )
})
