import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as EventStream from "../../src/master/EventStream.js"
import { type Event, type Instance, keyId, noMeta, noTraffic } from "../../src/master/Instance.js"
import * as Journal from "../../src/master/Journal.js"
import * as Simulation from "../../src/testing/Simulation.js"

const own: Instance = {
  id: keyId,
  alias: "",
  type: "",
  status: "",
  url: "",
  config: "",
  restart: false,
  meta: noMeta,
  mode: 0,
  ping: 0,
  pool: 0,
  tcps: 0,
  udps: 0,
  ...noTraffic,
  error: "",
  version: 1
}
const event = (number: number): Event => ({ type: "log", time: "", instance: null, logs: String(number) })
const decoder = new TextDecoder()
/** What stands in blocks: events by type and number, and comments. */
const wordsOf = (text: string): ReadonlyArray<string> =>
  text
    .split("\n\n")
    .filter((block) => block !== "")
    .map((block) => {
      const [, data] = /^data: (.*)$/m.exec(block) ?? []
      if (data === undefined) return block
      const { logs, type }: Event = JSON.parse(data)
      return `${type} ${logs}`.trim()
    })

interface World {
  readonly journal: Journal.Journal<Event>
  readonly streams: EventStream.EventStream
  readonly renew: Effect.Effect<unknown>
  readonly subscribers: () => number
}

const inWorld = <E>(
  program: (world: World) => Effect.Effect<void, E>,
  { limit = 100, seed = 1 }: { readonly limit?: number; readonly seed?: number } = {}
) => {
  const { exit, leftover } = Simulation.run(
    Effect.gen(function* () {
      const journal = Journal.make<Event>({ limit, size: { limit: Infinity, of: () => 1 } })
      const renewed = yield* Deferred.make<void>()
      let subscribers = 0
      let renewals = 0
      const streams = yield* EventStream.make({
        events: journal,
        initial: Effect.succeed([own, own]),
        run: "run",
        renewed: Effect.suspend(() => (renewals++ === 0 ? Deferred.await(renewed) : Effect.never)),
        subscribed: (change) => {
          subscribers += change
        }
      })
      yield* program({ journal, streams, renew: Deferred.succeed(renewed, undefined), subscribers: () => subscribers })
      yield* journal.close
      // Whoever reads in rounds has had its turn.
      yield* Effect.sleep("1 minute")
      assert.strictEqual(subscribers, 0)
    }),
    { seed, maxSteps: 5_000_000 }
  )
  if (Exit.isFailure(exit)) assert.fail(String(exit.cause))
  assert.strictEqual(leftover, 0)
}

/** All that it hears until the end, reading again so many milliseconds after each time. */
const hear = (streams: EventStream.EventStream, pace = 0, lastId = Option.none<string>()) =>
  Effect.gen(function* () {
    const words: Array<string> = []
    yield* Stream.runForEach(streams.subscribe({ lastId, own }), (bytes) =>
      Effect.zipRight(
        Effect.sync(() => words.push(...wordsOf(decoder.decode(bytes)))),
        Effect.sleep(pace)
      )
    )
    return words
  })

const greeting = ["retry: 3000", "initial", "initial", "initial"]

describe("EventStream", () => {
  it("each of a crowd hears everything in order, or is told how much it lost", () =>
    FastCheck.assert(
      FastCheck.property(
        FastCheck.integer({ min: 1, max: 1_000_000 }),
        FastCheck.array(FastCheck.oneof(FastCheck.constant(0), FastCheck.integer({ min: 1, max: 3000 })), {
          minLength: 1,
          maxLength: 150
        }),
        FastCheck.integer({ min: 1, max: 400 }),
        (seed, paces, count) =>
          inWorld(
            ({ journal, streams }) =>
              Effect.gen(function* () {
                const crowd = yield* Effect.fork(
                  Effect.forEach(paces, (pace) => hear(streams, pace), { concurrency: "unbounded" })
                )
                yield* Effect.sleep("10 seconds")
                for (let number = 0; number < count; number++) {
                  journal.append(event(number))
                  yield* Effect.sleep(yield* Random.nextIntBetween(0, 50))
                }
                yield* journal.close
                for (const [at, words] of (yield* Fiber.join(crowd)).entries()) {
                  assert.deepStrictEqual(words.slice(0, 4), greeting)
                  let expected = 0
                  for (const word of words.slice(4)) {
                    const [, lost] = /^lagged (\d+) events lost$/.exec(word) ?? []
                    if (lost === undefined) assert.strictEqual(word, `log ${expected++}`)
                    else expected += Number(lost)
                  }
                  assert.strictEqual(expected, count)
                  if (paces[at] === 0) assert.notInclude(words.join(), "lagged")
                }
              }),
            { seed, limit: 50 }
          )
      ),
      { numRuns: 15 }
    ))

  it("goes on where a stream broke off, and begins anew where that is not known", () =>
    inWorld(({ journal, streams }) =>
      Effect.gen(function* () {
        for (let number = 0; number < 150; number++) journal.append(event(number))
        const from = (id: string) => Effect.fork(hear(streams, 0, Option.some(id)))
        const [recent, old, other] = [yield* from("run-147"), yield* from("run-9"), yield* from("gone-147")]
        yield* Effect.sleep("1 second")
        yield* journal.close
        assert.deepStrictEqual(yield* Fiber.join(recent), ["retry: 3000", "log 148", "log 149"])
        assert.deepStrictEqual((yield* Fiber.join(old)).slice(0, 3), ["retry: 3000", "lagged 40 events lost", "log 50"])
        assert.deepStrictEqual(yield* Fiber.join(other), greeting)
      })
    ))

  it("says that it is there in each 15 s of silence", () =>
    inWorld(({ journal, streams }) =>
      Effect.gen(function* () {
        const hearing = yield* Effect.fork(hear(streams))
        yield* Effect.sleep("50 seconds")
        journal.append(event(0))
        yield* Effect.sleep("14 seconds")
        yield* journal.close
        const comment = ": still here"
        assert.deepStrictEqual(yield* Fiber.join(hearing), [...greeting, comment, comment, comment, "log 0"])
      })
    ))

  it("ends for those who are there when the key is renewed", () =>
    inWorld(({ journal, renew, streams, subscribers }) =>
      Effect.gen(function* () {
        const before = yield* Effect.fork(Effect.all([hear(streams), hear(streams)], { concurrency: 2 }))
        yield* Effect.sleep("1 second")
        assert.strictEqual(subscribers(), 2)
        yield* renew
        assert.deepStrictEqual(yield* Fiber.join(before), [greeting, greeting])
        const after = yield* Effect.fork(hear(streams))
        yield* Effect.sleep("1 second")
        journal.append(event(0))
        yield* journal.close
        assert.deepStrictEqual(yield* Fiber.join(after), [...greeting, "log 0"])
      })
    ))
})
