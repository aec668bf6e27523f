import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Throttle from "../../src/relay/Throttle.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

const world = <A>(program: Effect.Effect<A, never, Scope.Scope>): A => {
  return Simulated.run({ seed: 1 }, () => program)
}

interface Passed {
  readonly at: number
  readonly connection: number
  readonly bytes: number
}

/** Connections that always have something to send, each in chunks of the given size. */
const demand = (bucket: Throttle.Bucket, chunks: ReadonlyArray<number>, seconds: number, whole = false) =>
  Effect.gen(function* () {
    const passed: Array<Passed> = []
    const send = (chunk: number, connection: number) =>
      Effect.forever(
        Effect.gen(function* () {
          for (let left = chunk; left > 0;) {
            const bytes = whole ? left : yield* bucket.take(left)
            if (whole) yield* bucket.takeWhole(left)
            assert.isTrue(bytes >= 1 && bytes <= left)
            left -= bytes
            passed.push({ at: yield* Clock.currentTimeMillis, connection, bytes })
          }
        })
      )
    const fibers = yield* Effect.forEach(chunks, (chunk, connection) => Effect.fork(send(chunk, connection)))
    yield* Effect.sleep(seconds * 1000)
    yield* Fiber.interruptAll(fibers)
    return passed
  })

const total = (passed: ReadonlyArray<Passed>) => passed.reduce((sum, { bytes }) => sum + bytes, 0)

const rate = FastCheck.integer({ min: 1, max: 1000 }).map((megabits) => megabits * 125_000)
const chunks = FastCheck.array(FastCheck.integer({ min: 1024, max: 65_536 }), { minLength: 1, maxLength: 5 })

const within = (passed: ReadonlyArray<Passed>, rate: number, seconds: number) => {
  for (let from = 0; from + 2000 <= seconds * 1000; from += 130) {
    const bytes = total(passed.filter(({ at }) => at >= from && at < from + 2000))
    assert.isTrue(Math.abs(bytes / (2 * rate) - 1) <= 0.1, `${bytes} of ${2 * rate} from ${from} ms`)
  }
}

describe("Throttle", () => {
  it("has no buckets without a limit, so that the data path makes no call", () => {
    const { rx, tx } = world(
      Effect.map(Layer.build(Throttle.layer()), (services) => Context.get(services, Throttle.Throttle))
    )
    assert.deepStrictEqual([rx, tx], [undefined, undefined])
  })

  it.prop(
    "under constant demand, any two seconds pass what the rate allows, within a tenth",
    [rate, chunks],
    ([rate, chunks]) => {
      within(world(Effect.flatMap(Throttle.makeBucket(rate), (bucket) => demand(bucket, chunks, 3))), rate, 3)
    },
    { fastCheck: { numRuns: runs(3, 12) } }
  )

  it.prop(
    "datagrams, which pass whole, keep the rate as well",
    [FastCheck.integer({ min: 1, max: 200 }), FastCheck.integer({ min: 1000, max: 16_384 })],
    ([megabits, size]) => {
      const rate = megabits * 125_000
      within(
        world(Effect.flatMap(Throttle.makeBucket(rate), (bucket) => demand(bucket, [size, size], 3, true))),
        rate,
        3
      )
    },
    { fastCheck: { numRuns: runs(3, 12) } }
  )

  it("a long pause saves up no more than a burst", () => {
    const passed = world(
      Effect.gen(function* () {
        const bucket = yield* Throttle.makeBucket(1_250_000)
        yield* Effect.sleep("1 hour")
        return yield* demand(bucket, [65_536], 1)
      })
    )
    assert.isAtMost(total(passed), 1_250_000 * 1.1)
  })

  it.prop(
    "connections that all want more get equal shares, within a tenth",
    [FastCheck.integer({ min: 2, max: 40 }), FastCheck.integer({ min: 5, max: 100 })],
    ([count, megabits]) => {
      const passed = world(
        Effect.flatMap(Throttle.makeBucket(megabits * 125_000), (bucket) =>
          demand(
            bucket,
            Array.from({ length: count }, () => 65_536),
            4
          )
        )
      )
      // The first connection takes the initial burst.
      const after = passed.filter(({ at }) => at > 1000)
      const shares = Array.from({ length: count }, (_, index) =>
        total(after.filter(({ connection }) => connection === index))
      )
      const mean = total(after) / count
      for (const share of shares) assert.isTrue(Math.abs(share / mean - 1) <= 0.1, `${share} of ${mean}`)
    },
    { fastCheck: { numRuns: runs(3, 8) } }
  )

  it("a small request waits no longer than one round of the others", () => {
    const longest = world(
      Effect.gen(function* () {
        const bucket = yield* Throttle.makeBucket(1_250_000)
        const bulk = yield* Effect.fork(
          demand(
            bucket,
            Array.from({ length: 10 }, () => 65_536),
            5
          )
        )
        let longest = 0
        for (let turn = 0; turn < 100; turn++) {
          yield* Effect.sleep("37 millis")
          const before = yield* Clock.currentTimeMillis
          yield* bucket.take(64)
          longest = Math.max(longest, (yield* Clock.currentTimeMillis) - before)
        }
        yield* Fiber.interrupt(bulk)
        return longest
      })
    )
    assert.isAtMost(longest, 30)
  })

  it("one timer serves all that wait, and none runs when nothing waits", () => {
    const sleeps = (connections: number) => {
      let count = 0
      world(
        Effect.gen(function* () {
          const clock = yield* Effect.clock
          const counting: Clock.Clock = {
            ...clock,
            sleep: (duration) => {
              count++
              return clock.sleep(duration)
            }
          }
          const bucket = yield* Effect.withClock(Throttle.makeBucket(1_250_000), counting)
          const passing = Array.from({ length: connections }, () =>
            Effect.withClock(Effect.replicateEffect(bucket.take(10_000), 10, { discard: true }), counting)
          )
          yield* Effect.all(passing, { concurrency: "unbounded", discard: true })
        })
      )
      return count
    }
    assert.isAtMost(sleeps(30), 40 * sleeps(1) + 40)
  })

  it.prop("an interrupted wait has taken nothing", [FastCheck.integer({ min: 1, max: 60 })], ([after]) => {
    const passed = world(
      Effect.gen(function* () {
        const bucket = yield* Throttle.makeBucket(1_250_000)
        yield* bucket.takeWhole(62_500)
        const waiters = yield* Effect.replicateEffect(Effect.fork(bucket.take(12_500)), 20)
        yield* Effect.sleep(after)
        yield* Fiber.interruptAll(waiters)
        yield* Effect.sleep("10 seconds")
        return yield* bucket.take(1e9)
      })
    )
    assert.strictEqual(passed, 62_500)
  })

  it("a clock that is set back delays nothing", () => {
    const took = world(
      Effect.gen(function* () {
        const clock = yield* Effect.clock
        let shift = 0
        const shifting: Clock.Clock = {
          ...clock,
          unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + shift
        }
        const bucket = yield* Effect.withClock(Throttle.makeBucket(1_250_000), shifting)
        yield* bucket.takeWhole(62_500)
        shift = -3_600_000
        const [took] = yield* Effect.timed(bucket.take(1000))
        return took
      })
    )
    assert.isBelow(Number(took.pipe((duration) => duration.value._tag === "Millis" && duration.value.millis)), 100)
  })
})
