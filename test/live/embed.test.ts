import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import process from "node:process"
import * as Embed from "../../examples/embed.js"

const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length

/** Sockets that were destroyed leave the list when their close callbacks have run. */
const settled = Effect.async<void>((resume) => {
  const look = () => (sockets() === 0 ? resume(Effect.void) : setImmediate(look))
  look()
})

describe("embedding", () => {
  it.live("a host runs both sides, reads how they are, and its scope closes every socket", () =>
    Effect.gen(function* () {
      assert.strictEqual(sockets(), 0)
      assert.strictEqual(yield* Effect.provide(Embed.program, Embed.live), "hello")
      yield* settled
    })
  )
})
