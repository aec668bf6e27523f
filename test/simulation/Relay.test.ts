import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Meter from "../../src/relay/Meter.js"
import * as PortableRelay from "../../src/relay/PortableRelay.js"
import * as Relay from "../../src/relay/Relay.js"
import * as Throttle from "../../src/relay/Throttle.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import { readAll } from "../Bytes.js"
import * as Simulated from "../Simulated.js"

interface Line {
  /** The outer ends. */
  readonly visitor: Connection
  readonly target: Connection
  readonly exchange: Effect.Effect<void, unknown>
}

const world = <A, E>(
  seed: number,
  link: SimNetwork.Link,
  idle: Duration.Duration | undefined,
  program: (line: Line) => Effect.Effect<A, E, Meter.Meter | Relay.Relay | Scope.Scope>,
  rate?: number
): A => {
  const network = SimNetwork.make(link)
  const main = Effect.gen(function* () {
    const [outer, inner] = yield* Effect.all([
      Effect.provide(Transport, network.host("outer")),
      Effect.provide(Transport, network.host("inner"))
    ])
    const listener = yield* inner.listen(Address.make("inner", 1))
    const connect = Effect.zip(outer.connect(Address.make("inner", 1)), listener.accept)
    const [visitor, near] = yield* connect
    const [target, far] = yield* connect
    const relay = yield* Relay.Relay
    return yield* program({ visitor, target, exchange: relay.exchange(near, far) })
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.provideMerge(PortableRelay.layer({ idle }), Layer.merge(Meter.layer, Throttle.layer({ rate })))
    )
  )
  return Simulated.run({ seed, network }, () => main)
}

const counts = Effect.flatMap(Relay.Relay, ({ count }) => count)
const bytes = FastCheck.uint8Array({ maxLength: 3000 })
const link = FastCheck.record({
  latency: FastCheck.integer({ min: 0, max: 50 }),
  window: FastCheck.integer({ min: 1, max: 5 }),
  segment: FastCheck.integer({ min: 1, max: 900 })
})

describe("Relay", () => {
  it.prop(
    "transfers both directions completely and in order, and each end as an end",
    [FastCheck.integer(), link, bytes, bytes],
    ([seed, link, up, down]) => {
      const [atTarget, atVisitor, traffic, live] = world(seed, link, undefined, ({ exchange, target, visitor }) =>
        Effect.gen(function* () {
          yield* Effect.fork(exchange)
          // The target answers after the visitor has half-closed.
          const asked = yield* Effect.fork(
            Effect.zipLeft(readAll(target), Effect.zipRight(target.write(down), target.end))
          )
          yield* Effect.zipRight(visitor.write(up), visitor.end)
          const answer = yield* readAll(visitor)
          const question = yield* asked
          yield* Effect.flatMap(Relay.Relay, ({ drained }) => drained)
          return [question, answer, (yield* Meter.Meter).traffic, yield* counts] as const
        })
      )
      assert.deepStrictEqual([Array.from(atTarget), Array.from(atVisitor)], [Array.from(up), Array.from(down)])
      assert.deepStrictEqual(traffic, { tcpTx: up.length, tcpRx: down.length, udpTx: 0, udpRx: 0 })
      assert.deepStrictEqual(live, { live: 0, total: 1 })
    }
  )

  it.prop("a reset of either side resets the other", [FastCheck.integer(), FastCheck.boolean()], ([seed, first]) => {
    const reason = world(seed, { latency: 3 }, undefined, ({ exchange, target, visitor }) =>
      Effect.gen(function* () {
        yield* Effect.fork(Effect.ignore(exchange))
        const [leaver, other] = first ? [visitor, target] : [target, visitor]
        yield* leaver.reset
        const { reason } = yield* Effect.flip(other.read)
        yield* Effect.flatMap(Relay.Relay, ({ drained }) => drained)
        return reason
      })
    )
    assert.strictEqual(reason, "Reset")
  })

  it.prop(
    "an exchange is reset when both sides were silent for the limit, and not before",
    [FastCheck.integer(), FastCheck.integer({ min: 0, max: 20 })],
    ([seed, writes]) => {
      const limit = Duration.seconds(4)
      const [error, took] = world(seed, {}, limit, ({ exchange, target, visitor }) =>
        Effect.gen(function* () {
          yield* Effect.fork(readAll(target))
          // Bytes three seconds apart, in one direction, are enough to keep it alive.
          yield* Effect.fork(
            Effect.replicateEffect(Effect.delay(visitor.write(new Uint8Array(1)), Duration.seconds(3)), writes)
          )
          const [took, error] = yield* Effect.timed(Effect.flip(exchange))
          return [error, Duration.toSeconds(took)] as const
        })
      )
      assert.instanceOf(error, Relay.RelayIdle)
      assert.isTrue(took >= writes * 3 + 4 && took <= writes * 3 + 6, `${took} s`)
    }
  )

  it("an exchange with a slow reader is not idle, one whose reader stopped is", () => {
    const limit = Duration.seconds(2)
    const network = SimNetwork.make({ window: 1, segment: 100 })
    const program = Effect.gen(function* () {
      const transport = yield* Transport
      const listener = yield* transport.listen(Address.make("inner", 1))
      const [target, far] = yield* Effect.zip(transport.connect(Address.make("inner", 1)), listener.accept)
      // One chunk, which the relay writes at once, and silence.
      let chunk = Option.some(new Uint8Array(65_536))
      const near: Connection = {
        ...far,
        read: Effect.suspend(() => {
          const next = chunk
          chunk = Option.none()
          return Option.isSome(next) ? Effect.succeed(next) : Effect.never
        }),
        unsent: () => 0
      }
      yield* Effect.fork(Effect.replicateEffect(Effect.delay(target.read, Duration.seconds(1)), 60))
      const { exchange } = yield* Relay.Relay
      const [took, error] = yield* Effect.timed(Effect.flip(exchange(near, far)))
      return [error, Duration.toSeconds(took)] as const
    }).pipe(
      Effect.provide(network.host("inner")),
      Effect.provide(Layer.provide(PortableRelay.layer({ idle: limit }), Layer.merge(Meter.layer, Throttle.layer())))
    )
    const [error, took] = Simulated.run({ seed: 3, network }, () => program)
    assert.instanceOf(error, Relay.RelayIdle)
    assert.isTrue(took >= 60 && took <= 64, `${took} s`)
  })

  it("an exchange that the rate slows down is not idle", () => {
    const received = world(
      3,
      {},
      Duration.seconds(1),
      ({ exchange, target, visitor }) =>
        Effect.gen(function* () {
          yield* Effect.fork(Effect.zipRight(visitor.write(new Uint8Array(60_000)), visitor.end))
          const reading = yield* Effect.fork(readAll(target))
          yield* Effect.fork(target.end)
          yield* exchange
          return yield* Fiber.join(reading)
        }),
      2000
    )
    assert.strictEqual(received.length, 60_000)
  })

  it("a reader that stops stops the writer", () => {
    const sent = world(5, { window: 4, segment: 1000 }, undefined, ({ exchange, visitor }) =>
      Effect.gen(function* () {
        yield* Effect.fork(exchange)
        let sent = 0
        const pour = Effect.tap(
          visitor.write(new Uint8Array(1000)),
          Effect.sync(() => (sent += 1000))
        )
        yield* Effect.timeoutOption(Effect.forever(pour), Duration.minutes(1))
        return sent
      })
    )
    assert.isAtMost(sent, 20_000)
  })
})
