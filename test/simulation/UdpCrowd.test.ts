import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { runs } from "../Runs.js"
import * as LimitWorld from "./worlds/LimitWorld.js"

describe("a crowd of UDP visitors", () => {
  it.each(LimitWorld.sides)(
    "that ask once each, for two minutes, is answered, and so are the TCP visitors beside it: %s",
    (side) => {
      // The same share of the slots in each case: 200 a second of 65536.
      const perSecond = runs(1, 200)
      const secondsPerTcp = runs(4, 1)
      const slots = Math.floor((65_536 * perSecond) / 200)
      LimitWorld.run({ side, query: `slot=${slots}` }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          yield* LimitWorld.echoTcp(network)
          yield* LimitWorld.echoUdp(network)
          let unanswered = 0
          let peak = 0
          const ask = (protocol: "tcp" | "udp") =>
            Effect.scoped(
              Effect.flatMap(LimitWorld.visitor(protocol), ({ ping }) =>
                Effect.map(ping, (answered) => (unanswered += answered ? 0 : 1))
              )
            )
          for (let second = 0; second < 120; second++) {
            if (second % secondsPerTcp === 0) yield* Effect.forkScoped(ask("tcp"))
            for (let question = 0; question < perSecond; question++) {
              yield* Effect.forkScoped(ask("udp"))
              yield* Effect.sleep(Duration.millis(1000 / perSecond))
            }
            peak = Math.max(peak, (yield* tunnel.checkpoint).udps)
          }
          yield* Effect.sleep("2 seconds")
          const { refused } = yield* tunnel.checkpoint
          assert.deepStrictEqual([unanswered, refused["slot"], refused["evicted"]], [0, 0, 0])
          // Each session has lasted for 30 s, and the margin of the side that dials.
          assert.isAtMost(peak, perSecond * (33 + (side === "dialler" ? 2 : 0)))
        })
      )
    }
  )
})
