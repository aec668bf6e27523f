import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Journal from "../../src/master/Journal.js"
import { runs } from "../Runs.js"

const make = (limit: number, sizes = Infinity) =>
  Journal.make<number>({ limit, size: { limit: sizes, of: (entry) => entry } })

const Steps = Schema.Array(Schema.Union(Schema.Int.pipe(Schema.between(1, 9)), Schema.Literal("read")))

describe("Journal", () => {
  it.effect.prop(
    "a reader gets every entry once and in order, or the number of entries that it lost",
    [Steps, Schema.Int.pipe(Schema.between(1, 8)), Schema.Int.pipe(Schema.between(1, 5))],
    ([steps, limit, page]) =>
      Effect.gen(function* () {
        const journal = make(limit)
        const all: Array<number> = []
        let from = 0
        for (const step of steps) {
          if (step !== "read") {
            journal.append(step)
            all.push(step)
            continue
          }
          if (from === all.length) continue
          const { entries, first, lost } = Option.getOrThrow(yield* journal.read(from, page))
          assert.strictEqual(first, from + lost)
          assert.deepStrictEqual(entries, all.slice(first, first + entries.length))
          assert.isTrue(entries.length > 0 && entries.length <= page)
          assert.isTrue(lost === 0 || all.length - first === limit, "no entry is lost below the limit")
          from = first + entries.length
        }
        assert.strictEqual(yield* journal.next, all.length)
        assert.deepStrictEqual(yield* journal.last(limit), all.slice(-limit))
      }),
    { fastCheck: { numRuns: runs(10, 50) } }
  )

  it.effect.prop(
    "keeps entries up to the size limit, and always the last entry",
    [Schema.Array(Schema.Int.pipe(Schema.between(1, 20))), Schema.Int.pipe(Schema.between(1, 30))],
    ([entries, limit]) =>
      Effect.gen(function* () {
        const journal = make(1000, limit)
        for (const entry of entries) journal.append(entry)
        const kept = yield* journal.last(1000)
        const sum = kept.reduce((sum, entry) => sum + entry, 0)
        assert.isTrue(sum <= limit || kept.length === 1)
        assert.deepStrictEqual(kept, entries.slice(entries.length - kept.length))
      }),
    { fastCheck: { numRuns: runs(10, 50) } }
  )

  it.effect("a reader that has every entry waits for the next one, and gets None after close", () =>
    Effect.gen(function* () {
      const journal = make(3)
      const reading = yield* Effect.fork(journal.read(0, 10))
      yield* Effect.yieldNow()
      assert.isTrue(Option.isNone(yield* Fiber.poll(reading)))
      journal.append(7)
      assert.deepStrictEqual(Option.getOrThrow(yield* Fiber.join(reading)).entries, [7])
      const ending = yield* Effect.fork(journal.read(1, 10))
      yield* Effect.yieldNow()
      yield* journal.close
      assert.isTrue(Option.isNone(yield* Fiber.join(ending)))
      assert.isTrue(Option.isSome(yield* journal.read(0, 10)), "entries before close can still be read")
    })
  )
})
