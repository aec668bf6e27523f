import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Outbox from "../../src/signal/Outbox.js"
import { SessionStoreError } from "../../src/tunnel/SessionStore.js"
import * as Signal from "../../src/wire/Signal.js"
import type * as Tunnel from "../../src/tunnel/Tunnel.js"
import * as MemoryStore from "./worlds/MemoryStore.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const seconds = (count: number) => Effect.sleep(Duration.seconds(count))

const keyOf = (text: string) => Option.some(Redacted.make(text))

/** A server stops, and another starts so many seconds later. Returns the answers, the log and what was stored. */
const restart = (
  away: number,
  options?: {
    readonly max?: number
    /** A tunnel key that both sides get while they run. */
    readonly key?: string
    /** The key that the next server starts with. */
    readonly nextKey?: string
    readonly spoil?: (text: string) => string
    readonly store?: MemoryStore.Options["wrap"]
  }
) => {
  const store = MemoryStore.make({ wrap: options?.store ?? (() => ({})) })
  const place = String(SmallWorld.tunnelPort)
  return SmallWorld.run({ host: store.layer, link: { latency: 10 } }, ({ log, start, visit }) =>
    Effect.gen(function* () {
      const server = Effect.scoped(
        Effect.gen(function* () {
          const server = yield* start("server", serverConfig)
          yield* server.ready
          const answer = yield* visit
          if (options?.key !== undefined) {
            for (const tunnel of [server, client]) yield* tunnel?.replaceKey(keyOf(options.key)) ?? Effect.void
          }
          yield* seconds(2)
          return answer
        })
      )
      let client: Tunnel.Tunnel["Type"] | undefined
      const serving = yield* Effect.fork(server)
      client = yield* start("client", clientConfig)
      const first = yield* serving
      const stored = store.texts.get(place) ?? "{}"
      yield* seconds(away)
      if (options?.spoil !== undefined) store.texts.set(place, options.spoil(stored))
      const key = options?.nextKey === undefined ? serverConfig.key : keyOf(options.nextKey)
      yield* start("server", { ...serverConfig, key, max: options?.max ?? serverConfig.max })
      const answers = [first, yield* visit]
      yield* seconds(5)
      const count = (text: string) => log.filter((line) => line === text).length
      return { answers, stored, log: log.slice(), begun: count("connected"), resumed: count("connected again") }
    })
  )
}

describe("a server that stops and starts again", () => {
  it("continues its session, and serves", () => {
    const { answers, begun, stored, resumed } = restart(3)
    assert.deepStrictEqual([answers, begun, resumed], [["hi", "hi"], 1, 1])
    const { joins, version } = JSON.parse(stored)
    assert.strictEqual(version, 2)
    assert.isAbove(joins, 60)
  })

  it("continues its session with the tunnel key that both sides got meanwhile, and with no other", () => {
    const same = restart(3, { key: "second", nextKey: "second" })
    assert.deepStrictEqual([same.answers, same.begun, same.resumed], [["hi", "hi"], 1, 2])
    const other = restart(3, { key: "second" })
    assert.deepStrictEqual([other.answers, other.begun], [["hi", "hi"], 2])
    assert.notInclude(other.log, "restored the previous session; waiting for its client")
  })

  it("begins a new session after the grace period, and under other terms", () => {
    for (const { answers, begun, resumed } of [restart(31), restart(3, { max: 7 })]) {
      assert.deepStrictEqual([answers, begun, resumed], [["hi", "hi"], 2, 0])
    }
  })

  it("begins a new session, and logs why, when the stored one cannot be read, decoded or written", () => {
    const fail = (operation: "read" | "write") =>
      new SessionStoreError({ operation, file: "/state/x.json", cause: new Error("no room") })
    const worlds = [
      [restart(3, { spoil: (text) => text.slice(1) }), "the stored session cannot be decoded; beginning a new one"],
      [restart(3, { store: () => ({ read: fail("read") }) }), "cannot read the session from /state/x.json: no room"],
      [
        restart(3, { store: () => ({ write: () => fail("write") }) }),
        "cannot write the session to /state/x.json: no room; if this process is killed, a new one begins"
      ]
    ] as const
    for (const [{ answers, begun, log }, line] of worlds) {
      assert.deepStrictEqual([answers, begun], [["hi", "hi"], 2])
      assert.include(log, line)
    }
  })

  it("resends the signals that its client has not acknowledged, with the same numbers", () => {
    const outbox = Outbox.make({ limit: 10 })
    outbox.put(new Signal.Keep({ count: 3 }))
    outbox.put(new Signal.Flush())
    outbox.take(0)
    outbox.acknowledge(0)
    outbox.put(new Signal.Demand({ count: 9 }))
    const next = Outbox.make({ limit: 10, snapshot: outbox.snapshot() })
    next.resendAll()
    assert.deepStrictEqual(
      next.take(0).map(({ number, signal }) => [number, signal._tag]),
      [
        [1, "Keep"],
        [2, "Demand"]
      ]
    )
  })
})
