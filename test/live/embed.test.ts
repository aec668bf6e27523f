import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import process from "node:process"
import * as Embed from "../../examples/embed.js"
import * as OwnPolicy from "../../examples/pool-policy.js"

const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length

/** Completes when no more sockets are open than before: a destroyed one leaves the list after its close callback has run. */
const allClosed = (before: number) =>
  Effect.async<void>((resume) => {
    const look = () => (sockets() <= before ? resume(Effect.void) : setImmediate(look))
    look()
  })

describe("embedding", () => {
  it.live("a host runs both sides, reads their state, and its scope closes every socket", () =>
    Effect.gen(function* () {
      const before = sockets()
      assert.strictEqual(yield* Effect.provide(Embed.program, Embed.live), "hello")
      yield* allClosed(before)
    })
  )

  it.live("a host's own pool policy decides how many connections wait for visitors", () =>
    Effect.gen(function* () {
      const before = sockets()
      assert.strictEqual(yield* Effect.provide(OwnPolicy.program, OwnPolicy.live), 8)
      yield* allClosed(before)
    })
  )
})
