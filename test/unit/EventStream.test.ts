import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as EventStream from "../../src/master/EventStream.js"
import { type Event, type Instance, keyId, noMeta, noTraffic } from "../../src/master/Instance.js"
import * as Journal from "../../src/master/Journal.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

const keyEntry: Instance = {
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
  serving: true,
  reason: "",
  refused: {},
  version: 1
}
const event = (number: number): Event => ({ type: "log", time: "", instance: null, logs: String(number) })
const decoder = new TextDecoder()
/** Each block of the text in short: the type and number of an event, or the comment. */
const summaryOf = (text: string): ReadonlyArray<string> =>
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
  Simulated.run({ seed }, () =>
    Effect.gen(function* () {
      const journal = Journal.make<Event>({ limit, size: { limit: Infinity, of: () => 1 } })
      const renewed = yield* Deferred.make<void>()
      let subscribers = 0
      let renewals = 0
      const streams = yield* EventStream.make({
        events: journal,
        instances: Effect.succeed([keyEntry, keyEntry]),
        run: "run",
        renewed: Effect.suspend(() => (renewals++ === 0 ? Deferred.await(renewed) : Effect.never)),
        onCount: (change) => {
          subscribers += change
        }
      })
      yield* program({ journal, streams, renew: Deferred.succeed(renewed, undefined), subscribers: () => subscribers })
      yield* journal.close
      // Subscribers that wait for a round have been woken by then.
      yield* Effect.sleep("1 minute")
      assert.strictEqual(subscribers, 0)
    })
  )
}

/** All blocks that a subscriber receives until the end; `pace` is its pause in milliseconds after each read. */
const receive = (streams: EventStream.EventStream, pace = 0, lastId = Option.none<string>()) =>
  Effect.gen(function* () {
    const blocks: Array<string> = []
    yield* Stream.runForEach(streams.subscribe({ lastId, keyEntry }), (bytes) =>
      Effect.zipRight(
        Effect.sync(() => blocks.push(...summaryOf(decoder.decode(bytes)))),
        Effect.sleep(pace)
      )
    )
    return blocks
  })

const initialBlocks = ["retry: 3000", "initial", "initial", "initial"]

describe("EventStream", () => {
  it("each subscriber receives all events in order, or the number of events that it lost", () =>
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
                const receiving = yield* Effect.fork(
                  Effect.forEach(paces, (pace) => receive(streams, pace), { concurrency: "unbounded" })
                )
                yield* Effect.sleep("10 seconds")
                for (let number = 0; number < count; number++) {
                  journal.append(event(number))
                  yield* Effect.sleep(yield* Random.nextIntBetween(0, 50))
                }
                yield* journal.close
                for (const [at, blocks] of (yield* Fiber.join(receiving)).entries()) {
                  assert.deepStrictEqual(blocks.slice(0, 4), initialBlocks)
                  let expected = 0
                  for (const block of blocks.slice(4)) {
                    const [, lost] = /^lagged (\d+) events lost$/.exec(block) ?? []
                    if (lost === undefined) assert.strictEqual(block, `log ${expected++}`)
                    else expected += Number(lost)
                  }
                  assert.strictEqual(expected, count)
                  if (paces[at] === 0) assert.notInclude(blocks.join(), "lagged")
                }
              }),
            { seed, limit: 50 }
          )
      ),
      { numRuns: runs(8, 30) }
    ))

  it("continues after the last id, and sends the initial state for an unknown id", () =>
    inWorld(({ journal, streams }) =>
      Effect.gen(function* () {
        for (let number = 0; number < 150; number++) journal.append(event(number))
        const from = (id: string) => Effect.fork(receive(streams, 0, Option.some(id)))
        const [recent, old, other] = [yield* from("run-147"), yield* from("run-9"), yield* from("gone-147")]
        yield* Effect.sleep("1 second")
        yield* journal.close
        assert.deepStrictEqual(yield* Fiber.join(recent), ["retry: 3000", "log 148", "log 149"])
        assert.deepStrictEqual((yield* Fiber.join(old)).slice(0, 3), ["retry: 3000", "lagged 40 events lost", "log 50"])
        assert.deepStrictEqual(yield* Fiber.join(other), initialBlocks)
      })
    ))

  it("encodes an event once for all subscribers", () =>
    inWorld(({ journal, streams }) =>
      Effect.gen(function* () {
        const buffers = new Set<Uint8Array>()
        const read = Stream.runForEach(streams.subscribe({ lastId: Option.some("run--1"), keyEntry }), (bytes) =>
          Effect.sync(() => decoder.decode(bytes).includes('"logs":"7"') && buffers.add(bytes))
        )
        const reading = yield* Effect.fork(Effect.replicateEffect(read, 20, { concurrency: "unbounded" }))
        yield* Effect.sleep("1 second")
        journal.append(event(7))
        yield* Effect.sleep("1 second")
        yield* journal.close
        yield* Fiber.join(reading)
        assert.strictEqual(buffers.size, 1)
      })
    ))

  it("sends a comment after each 15 s without events", () =>
    inWorld(({ journal, streams }) =>
      Effect.gen(function* () {
        const receiving = yield* Effect.fork(receive(streams))
        yield* Effect.sleep("50 seconds")
        journal.append(event(0))
        yield* Effect.sleep("14 seconds")
        yield* journal.close
        const comment = ": still here"
        assert.deepStrictEqual(yield* Fiber.join(receiving), [...initialBlocks, comment, comment, comment, "log 0"])
      })
    ))

  it("ends the present subscriptions when the key is renewed, and accepts new ones", () =>
    inWorld(({ journal, renew, streams, subscribers }) =>
      Effect.gen(function* () {
        const before = yield* Effect.fork(Effect.all([receive(streams), receive(streams)], { concurrency: 2 }))
        yield* Effect.sleep("1 second")
        assert.strictEqual(subscribers(), 2)
        yield* renew
        assert.deepStrictEqual(yield* Fiber.join(before), [initialBlocks, initialBlocks])
        const after = yield* Effect.fork(receive(streams))
        yield* Effect.sleep("1 second")
        journal.append(event(0))
        yield* journal.close
        assert.deepStrictEqual(yield* Fiber.join(after), [...initialBlocks, "log 0"])
      })
    ))
})
