import { assert, describe } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { runs } from "../Runs.js"
import { it } from "../Simulated.js"
import type { Path } from "./streams/Link.js"
import type { Plan } from "./streams/Peer.js"
import { large, moving, type Scenario, scenario, type StreamPlan, small } from "./streams/Scenario.js"
import { World } from "./streams/World.js"

describe("Streams", () => {
  it.drawn(
    "bytes arrive whole, in order, once, whatever befalls the carriers, and nothing is left",
    scenario(small),
    runs(700, 200_000),
    (drawn) => void new World(drawn).run()
  )

  it.drawn(
    "the same for streams that are moved to a connection of their own, at any byte",
    scenario(moving),
    runs(150, 40_000),
    (drawn) => void new World(drawn).run()
  )

  it.drawn(
    "the same for streams of some MB, which fill windows and what carriers keep",
    scenario(large),
    runs(50, 10_000),
    (drawn) => void new World(drawn).run()
  )

  it.drawn(
    "visitors that never read, and bulk, hold up no other: they are served within six round trips",
    FastCheck.record({
      latencyMillis: FastCheck.integer({ min: 10, max: 50 }),
      carriers: FastCheck.integer({ min: 1, max: 3 }),
      silent: FastCheck.integer({ min: 1, max: 20 }),
      bulk: FastCheck.integer({ min: 1, max: 4 })
    }),
    runs(6, 1000),
    ({ bulk, carriers, latencyMillis, silent }) => {
      const others = [
        ...Array.from({ length: silent }, () => visit(0, { reads: "Never" }, { bytes: 300_000 })),
        ...Array.from({ length: bulk }, () => visit(0, { bytes: 2_000_000 }, { bytes: 2_000_000 }))
      ]
      // Some come while windows fill, some later.
      const few = Array.from({ length: 10 }, (_, at) => visit(at * 2 * latencyMillis, { bytes: 100 }, answer))
      const path = { ...quiet, latencyMillis, bufferBytes: 131_072 }
      const world = new World({ ...calm, path, carriers, streams: [...few, ...others] })
      world.run()
      for (const visit of world.visits.slice(0, few.length)) assert.isBelow(visit.millis(), 12 * latencyMillis)
    }
  )

  it.drawn(
    "a frozen carrier is given up after a second, and its streams go on over the next connection",
    FastCheck.record({ latencyMillis: FastCheck.nat(50), seed: FastCheck.nat() }),
    runs(20, 1000),
    ({ latencyMillis, seed }) => {
      const streams = [0, 100, 200, 300, 400].map((atMillis) => visit(atMillis, { bytes: 100 }, answer))
      const faults = [{ kind: "Freeze" as const, carrier: 0, atMillis: 150 }]
      const world = new World({ ...calm, seed, path: { ...quiet, latencyMillis }, streams, faults })
      world.run()
      // Sweeps find it, up to two later than it could be found; then the frames go again.
      for (const visit of world.visits) assert.isBelow(visit.millis(), 1000 + 2 * 250 + 10 * latencyMillis)
      assert.isAbove(world.links.length, 1)
    }
  )

  it.drawn(
    "a frozen carrier that only the other side has given up is found by a ping, and its streams go on",
    FastCheck.record({ latencyMillis: FastCheck.nat(50), seed: FastCheck.nat() }),
    runs(20, 1000),
    ({ latencyMillis, seed }) => {
      // The target answers when the path is frozen, and the visitors' side waits for nothing.
      const streams = [0, 50].map((atMillis) =>
        visit(atMillis, { bytes: 100 }, { bytes: 2, chunkBytes: 1, pauseMillis: 1500 })
      )
      const faults = [{ kind: "Freeze" as const, carrier: 0, atMillis: 1400 }]
      const world = new World({ ...calm, tells: false, seed, path: { ...quiet, latencyMillis }, streams, faults })
      world.run()
      assert.isAbove(world.links.length, 1)
      for (const visit of world.visits) assert.isBelow(visit.millis(), 1500 + 5000 + 3 * 250 + 10 * latencyMillis)
    }
  )

  it.drawn(
    "a carrier without streams sends nothing, and one with quiet streams a ping now and then",
    FastCheck.nat(),
    runs(5, 100),
    (seed) => {
      const world = new World({
        ...calm,
        seed,
        streams: [visit(0, { ends: "AfterTheirEnd" }, { ends: "AfterTheirEnd" })]
      })
      const written = () => world.links.reduce((sum, { far, near }) => sum + far.writtenBytes + near.writtenBytes, 0)
      world.runFor(2000)
      const before = written()
      world.runFor(60_000)
      // A ping and its acknowledgement each four seconds.
      assert.isAbove(written(), before)
      assert.isAtMost(written() - before, 15 * (8 + 14))
      world.run()
    }
  )

  it.drawn(
    "a side that attaches a carrier which the other has ended learns that at once",
    FastCheck.record({ path: scenario(small).map(({ path }) => path), seed: FastCheck.nat() }),
    runs(50, 5000),
    ({ path, seed }) => {
      const world = new World({ ...calm, seed, path: { ...path, latencyMillis: 1 + path.latencyMillis } })
      world.runFor(500)
      const number = 1
      world.targets.end(number)
      world.runFor(2500)
      assert.strictEqual(world.visitors.multiplexer.carriers.get(number), undefined)
      assert.strictEqual(world.attempts.get(number), 2)
      assert.deepStrictEqual(world.targets.multiplexer.carriers.get(number), undefined)
      world.run()
    }
  )
})

const quiet: Path = { latencyMillis: 0, bufferBytes: 65_536, shortness: 0, refusals: 0, tells: true }
const calm: Scenario = {
  seed: 0,
  path: quiet,
  local: quiet,
  carriers: 1,
  dialler: "Visitors",
  attachMillis: 0,
  tells: true,
  passedBytes: 0,
  streams: [],
  faults: [],
  pooled: 0,
  moveAfterBytes: Infinity
}
const peer: Plan = { bytes: 0, chunkBytes: 65_536, pauseMillis: 0, reads: "Fast", ends: "Sent" }
const answer: Partial<Plan> = { bytes: 1000, ends: "AfterTheirEnd" }
const visit = (atMillis: number, visitor: Partial<Plan>, target: Partial<Plan>): StreamPlan => ({
  atMillis,
  dialMillis: 0,
  visitor: { ...peer, ...visitor },
  target: { ...peer, ...target },
  resetsNext: false,
  reset: undefined
})
