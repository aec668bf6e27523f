import { afterEach, assert, beforeEach, describe, it } from "vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import { runs, seed } from "../Runs.js"
import * as WrongUrl from "../simulation/worlds/WrongUrl.js"
import * as Here from "./command/Here.js"
import { makeWorld, type World } from "./command/Nodepass.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

describe("a URL with one thing wrong in it", () => {
  // The ports are taken: a command that opens one fails to, or comes as a visitor.
  it.each(["server", "client"] as const)(
    "is refused by check and by a run alike, which open nothing: %s",
    async (role) => {
      const start = Here.starter(world)
      let visitors = 0
      const listeners = [await world.listen(() => visitors++), await world.listen(() => visitors++)]
      const [tunnel = "", target = ""] = listeners.map(({ port }) => `127.0.0.1:${port}`)
      const size: readonly [string, string] = role === "server" ? ["max", "9"] : ["min", "9"]
      const right = { role, key: "k", tunnel, targets: [target], query: [size] } as const
      // The command has its own message for what is wrong with the URL of a master.
      const wrong = WrongUrl.from(right).filter(({ text }) => !text.startsWith("master:"))
      for (const { text } of FastCheck.sample(wrong, { numRuns: runs(2, 20), seed })) {
        const { message } = Either.getOrThrow(Either.flip(TunnelUrl.parse(text)))
        const outcomes = [["check", text], [text]].map(async (args) => {
          const command = start(args)
          return { code: await command.ended, log: command.log(), out: command.out() }
        })
        const refused = { code: 2, log: `nodepass: ${message}\n`, out: "" }
        assert.deepStrictEqual(await Promise.all(outcomes), [refused, refused], text)
      }
      assert.strictEqual(visitors, 0)
    }
  )
})
