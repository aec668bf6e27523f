import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Outbox from "../src/Outbox.js"
import { type Place, SessionStore, SessionStoreError } from "../src/SessionStore.js"
import * as Signal from "../src/Signal.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

// The same inputs in every run.
FastCheck.configureGlobal({ seed: 1 })

const seconds = (count: number) => Effect.sleep(Duration.seconds(count))

/** A server that stops, and another that starts so many seconds later; what the log says, and what was kept. */
const restart = (
  away: number,
  options?: { readonly max?: number; readonly spoil?: (text: string) => string; readonly place?: Partial<Place> }
) => {
  const kept: Array<string> = []
  const place: Place = {
    take: () => Effect.sync(() => Option.map(Option.fromNullable(kept.at(-1)), options?.spoil ?? ((text) => text))),
    keep: (_, text) => Effect.sync(() => void kept.push(text)),
    ...options?.place
  }
  const host = Layer.succeed(SessionStore, { place: Option.some(place) })
  return SmallWorld.run({ host, link: { latency: 10 } }, ({ log, start, visit }) =>
    Effect.gen(function* () {
      const server = Effect.scoped(
        Effect.gen(function* () {
          const { ready } = yield* start("server", serverConfig)
          yield* ready
          const answer = yield* visit
          yield* seconds(2)
          return answer
        })
      )
      const serving = yield* Effect.fork(server)
      yield* start("client", clientConfig)
      const first = yield* serving
      yield* seconds(away)
      yield* start("server", { ...serverConfig, max: options?.max ?? serverConfig.max })
      const answers = [first, yield* visit]
      yield* seconds(5)
      const said = (text: string) => log.filter((line) => line === text).length
      return { answers, kept, log: log.slice(), begun: said("connected"), resumed: said("connected again") }
    })
  )
}

describe("a server that stops and starts again", () => {
  it("goes on with its session, and serves", () => {
    const { answers, begun, kept, resumed } = restart(3)
    assert.deepStrictEqual([answers, begun, resumed], [["hi", "hi"], 1, 1])
    const { joins, version } = JSON.parse(kept[0] ?? "")
    assert.strictEqual(version, 1)
    assert.isAbove(joins, 60)
  })

  it("begins a new one after the grace, and under other terms", () => {
    for (const { answers, begun, resumed } of [restart(31), restart(3, { max: 7 })]) {
      assert.deepStrictEqual([answers, begun, resumed], [["hi", "hi"], 2, 0])
    }
  })

  it("begins a new one, with a line in the log, when what was kept is of no use or cannot be kept", () => {
    const fail = (operation: "read" | "write") =>
      new SessionStoreError({ operation, file: "/state/x.json", cause: new Error("no room") })
    const worlds = [
      [
        restart(3, { spoil: (text) => text.slice(1) }),
        "what was kept of the session of before cannot be read: a new one begins"
      ],
      [restart(3, { place: { take: () => fail("read") } }), "the session cannot be read from /state/x.json: no room"],
      [
        restart(3, { place: { keep: () => fail("write"), take: () => Effect.succeedNone } }),
        "the session cannot be kept in /state/x.json: no room"
      ]
    ] as const
    for (const [{ answers, begun, log }, line] of worlds) {
      assert.deepStrictEqual([answers, begun], [["hi", "hi"], 2])
      assert.include(log, line)
    }
  })

  it("says to its client what that had not acknowledged, with the numbers of before", () => {
    const outbox = Outbox.make({ limit: 10 })
    outbox.put(new Signal.Keep({ count: 3 }))
    outbox.put(new Signal.Flush())
    outbox.take(0)
    outbox.acknowledge(0)
    outbox.put(new Signal.Demand({ count: 9 }))
    const next = Outbox.make({ limit: 10, saved: outbox.saved() })
    next.replay()
    assert.deepStrictEqual(
      next.take(0).map(({ number, signal }) => [number, signal._tag]),
      [
        [1, "Keep"],
        [2, "Demand"]
      ]
    )
  })
})
