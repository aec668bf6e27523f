import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Multiplexer } from "../../src/stream/Multiplexer.js"
import * as LimitWorld from "./worlds/LimitWorld.js"

afterEach(() => vi.restoreAllMocks())

describe("a session with streams", () => {
  it.each(["receiver", "dialler"] as const)("does nothing from time to time while nothing is open: %s", (side) => {
    const sweeps = vi.spyOn(Multiplexer.prototype, "sweep")
    const turns = vi.spyOn(Multiplexer.prototype, "turn")
    LimitWorld.run({ side, query: "" }, ({ network }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        // The first may come before there is a carrier.
        for (const wait of ["1 second", "5 seconds"] as const) {
          const ping = Effect.flatMap(LimitWorld.visitor("tcp"), (visitor) => visitor.ping)
          assert.isTrue(yield* Effect.scoped(ping))
          yield* Effect.sleep(wait)
        }
        assert.isAbove(sweeps.mock.calls.length, 0)
        for (const spy of [sweeps, turns]) spy.mockClear()
        yield* Effect.sleep("1 minute")
        assert.deepStrictEqual([sweeps.mock.calls.length, turns.mock.calls.length], [0, 0])
        assert.isTrue(yield* (yield* LimitWorld.visitor("tcp")).ping)
        yield* Effect.sleep("1 second")
        assert.isAbove(sweeps.mock.calls.length, 0)
      })
    )
  })
})
