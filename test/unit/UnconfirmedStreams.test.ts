import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"
import type { VisitorStream } from "../../src/stream/VisitorStream.js"
import * as UnconfirmedStreams from "../../src/tunnel/UnconfirmedStreams.js"

describe("UnconfirmedStreams", () => {
  it.effect(
    "gives up a stream when nothing of its carrier is confirmed, and not when a slow network confirms little",
    () =>
      Effect.gen(function* () {
        const buffer = { end: 100, acknowledged: 0 }
        const stream = { isOver: false, carrier: { buffer } } as VisitorStream
        const streams = UnconfirmedStreams.make(yield* Effect.clock, Duration.seconds(10))
        streams.add(stream)
        const expire = Effect.map(Clock.currentTimeMillis, (now) => streams.expire(now))
        for (let second = 0; second < 60; second++) {
          yield* TestClock.adjust("1 second")
          if (second % 5 === 0) buffer.acknowledged++
          assert.deepStrictEqual(yield* expire, [])
        }
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(yield* expire, [stream])
        streams.add(stream)
        buffer.acknowledged = 100
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual([yield* expire, streams.isEmpty()], [[], true])
      })
  )
})
