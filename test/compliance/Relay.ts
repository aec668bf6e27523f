/**
 * The contract of `Relay` on real sockets, for the portable relay and the kernel relay.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { readdirSync } from "node:fs"
import * as Address from "../../src/core/Address.js"
import * as Meter from "../../src/relay/Meter.js"
import * as Relay from "../../src/relay/Relay.js"
import * as Throttle from "../../src/relay/Throttle.js"
import { type Connection, Transport, type TransportError } from "../../src/transport/Transport.js"
import * as Lag from "../Lag.js"
import { readable } from "./Transport.js"
import { readLength, utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"

export interface World {
  readonly transport: Layer.Layer<Transport>
  /** Defaults to no rate. */
  readonly throttle?: Layer.Layer<Throttle.Throttle> | undefined
  /** Whether an exchange can be undone and have `near` back: not where `near` has TLS. Defaults to `true`. */
  readonly keeps?: boolean | undefined
  readonly layer: (options: Relay.Options) => Layer.Layer<Relay.Relay, never, Meter.Meter | Throttle.Throttle>
}

export interface Line {
  /** The outer ends. */
  readonly visitor: Connection
  readonly target: Connection
  readonly near: Connection
  readonly far: Connection
  readonly exchange: Effect.Effect<void, TransportError | Relay.FarSilent | Relay.RelayIdle>
}

export type Program<A, E> = Effect.Effect<A, E, Meter.Meter | Relay.Relay | Scope.Scope | Transport>

/** Descriptors that the process has open now. */
export const descriptors = (): number => readdirSync("/proc/self/fd").length

/** Node releases a closed handle right after the immediates of the turn that closed it. */
export const turn = Effect.async<void>((resume) => {
  setImmediate(() => setImmediate(() => resume(Effect.void)))
})

/** A visitor and a target, each connected to one of the two connections of an exchange. */
export const line: Effect.Effect<Line, TransportError, Relay.Relay | Scope.Scope | Transport> = Effect.gen(
  function* () {
    const transport = yield* Transport
    const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
    const connect = Effect.zip(transport.connect(listener.address), listener.accept, { concurrent: true })
    const [visitor, near] = yield* connect
    const [target, far] = yield* connect
    const relay = yield* Relay.Relay
    return { visitor, target, near, far, exchange: relay.exchange(near, far) }
  }
)

export const run = <A, E>(
  { layer, throttle = Throttle.layer(), transport }: World,
  program: Program<A, E>,
  idle?: Duration.Duration
): Effect.Effect<A, E | TransportError> =>
  Effect.scoped(program).pipe(
    Effect.provide(
      Layer.merge(transport, Layer.provideMerge(layer({ idle }), Layer.merge(Meter.layer, throttle))).pipe(
        Layer.provideMerge(Logger.remove(Logger.defaultLogger))
      )
    )
  )

/** Bytes that depend on their position. */
export const pattern = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index++) bytes[index] = (index * 31 + (index >> 8)) & 255
  return bytes
}

export const readAll = (connection: Connection, pause?: Effect.Effect<void>): Effect.Effect<Buffer, TransportError> =>
  Effect.gen(function* () {
    const parts: Array<Uint8Array> = []
    for (;;) {
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return Buffer.concat(parts)
      parts.push(chunk.value)
      if (pause !== undefined) yield* pause
    }
  })

interface Transfer {
  readonly bytes: number
  /** The lengths of its pieces, in turn, and the milliseconds after each. */
  readonly cuts: ReadonlyArray<readonly [length: number, pause: number]>
  /** Whether the sender first waits for the end of the other direction. */
  readonly waitsForEnd: boolean
  /** Milliseconds that the reader takes for a chunk. */
  readonly readPause: number
}

const send = (connection: Connection, { bytes, cuts }: Transfer) =>
  Effect.gen(function* () {
    const whole = pattern(bytes)
    for (let at = 0, turn = 0; at < bytes; turn++) {
      const [length, pause] = cuts[turn % cuts.length] ?? [bytes, 0]
      yield* connection.write(whole.subarray(at, at + length))
      at += length
      if (pause > 0 && turn < 20) yield* Effect.sleep(pause)
    }
    yield* connection.end
  })

export const transfer: FastCheck.Arbitrary<Transfer> = FastCheck.record({
  bytes: FastCheck.oneof(
    FastCheck.constantFrom(0, 1, 65_535, 65_536, 65_537, 262_144, 5_000_000),
    FastCheck.nat(100_000),
    FastCheck.nat(3_000_000)
  ),
  cuts: FastCheck.array(
    FastCheck.tuple(
      FastCheck.oneof(FastCheck.integer({ min: 500, max: 5000 }), FastCheck.integer({ min: 5000, max: 300_000 })),
      FastCheck.constantFrom(0, 0, 0, 1, 5)
    ),
    { minLength: 1, maxLength: 8 }
  ),
  waitsForEnd: FastCheck.boolean(),
  readPause: FastCheck.constantFrom(0, 0, 0, 2)
})

const same = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0

const drained = Effect.flatMap(Relay.Relay, ({ drained }) => drained)
const counts = Effect.flatMap(Relay.Relay, ({ count }) => count)
const traffic = Effect.map(Meter.Meter, ({ traffic }) => ({ tx: traffic.tcpTx, rx: traffic.tcpRx }))

/** How the bytes that a connection receives end: `End`, or the reason of the error. */
export const endOf = (connection: Connection): Effect.Effect<string> =>
  Effect.match(readAll(connection), { onFailure: ({ reason }) => reason, onSuccess: () => "End" })

/** Transfers both ways over one exchange, and returns what the target and the visitor received. */
export const transferBoth = ({ exchange, target, visitor }: Line, up: Transfer, down: Transfer) =>
  Effect.gen(function* () {
    const relaying = yield* Effect.fork(exchange)
    const receive = (connection: Connection, { readPause }: Transfer) =>
      readAll(connection, readPause > 0 ? Effect.sleep(readPause) : undefined)
    const atTarget = yield* Effect.fork(receive(target, up))
    const atVisitor = yield* Effect.fork(receive(visitor, down))
    // One of the two may wait for the other's end; not both.
    const upwards =
      up.waitsForEnd && !down.waitsForEnd
        ? Effect.zipRight(Fiber.await(atVisitor), send(visitor, up))
        : send(visitor, up)
    const downwards = down.waitsForEnd ? Effect.zipRight(Fiber.await(atTarget), send(target, down)) : send(target, down)
    yield* Effect.all([upwards, downwards], { concurrency: 2 })
    const received = yield* Fiber.join(Fiber.zip(atTarget, atVisitor))
    yield* Fiber.join(relaying)
    return received
  })

export const suite = (name: string, world: World): unknown =>
  describe(name, () => {
    const law = <E>(sentence: string, program: Program<void, E>, idle?: Duration.Duration) =>
      it.live(sentence, () => run(world, program, idle))

    it.live.prop(
      "transfers both directions completely and in order, and each end as an end, in pieces of any size",
      [transfer, transfer],
      ([up, down]) =>
        run(
          world,
          Effect.gen(function* () {
            const [atTarget, atVisitor] = yield* transferBoth(yield* line, up, down)
            assert.isTrue(same(atTarget, pattern(up.bytes)), `up: ${atTarget.length} of ${up.bytes}`)
            assert.isTrue(same(atVisitor, pattern(down.bytes)), `down: ${atVisitor.length} of ${down.bytes}`)
            yield* drained
            assert.deepStrictEqual(yield* traffic, { tx: up.bytes, rx: down.bytes })
            assert.deepStrictEqual(yield* counts, { live: 0, total: 1 })
          })
        ),
      { fastCheck: { numRuns: runs(6, 25) } }
    )

    law(
      "many exchanges at once do not mix",
      Effect.gen(function* () {
        const lines = yield* Effect.replicateEffect(line, 40)
        const transfers = lines.map((_, index): Transfer => ({
          bytes: index * 12_007,
          cuts: [[9973, 0]],
          waitsForEnd: index % 3 === 0,
          readPause: 0
        }))
        const [quiet] = transfers
        assert.isDefined(quiet)
        yield* Effect.forEach(
          lines,
          (line, index) =>
            Effect.gen(function* () {
              const [up = quiet, down = quiet] = [transfers[index], transfers[lines.length - 1 - index]]
              const [there, back] = yield* transferBoth(line, up, down)
              assert.isTrue(same(there, pattern(up.bytes)) && same(back, pattern(down.bytes)))
            }),
          { concurrency: "unbounded", discard: true }
        )
        assert.deepStrictEqual(yield* counts, { live: 0, total: 40 })
      })
    )

    law(
      "an exchange that keeps what comes from near is undone while nothing has come from far, and near has it all again",
      Effect.gen(function* () {
        if (world.keeps === false) return
        const { far, near, target, visitor } = yield* line
        const relay = yield* Relay.Relay
        yield* visitor.write(utf8("question "))
        const first = yield* Effect.fork(relay.exchange(near, far, { keep: true }))
        assert.strictEqual(yield* readLength(target, 9), "question ")
        for (let piece = 0; piece < 12; piece++) {
          yield* visitor.write(utf8("."))
          assert.strictEqual(yield* readLength(target, 1), ".")
        }
        yield* visitor.end
        assert.isTrue(Option.isNone(yield* target.read))
        assert.deepStrictEqual(relay.progress(far), { sent: true, received: false })
        assert.isTrue(yield* relay.undo(far))
        assert.strictEqual(
          Exit.match(yield* Fiber.await(first), {
            onSuccess: () => "",
            onFailure: (cause) =>
              Option.match(Cause.failureOption(cause), { onNone: () => "", onSome: ({ _tag }) => _tag })
          }),
          "FarSilent"
        )
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.forever(target.write(utf8("late"))))))

        const other = yield* line
        const second = yield* Effect.fork(relay.exchange(near, other.far, { keep: true }))
        assert.strictEqual(String(yield* readAll(other.target)), `question ${".".repeat(12)}`)
        yield* other.target.write(utf8("answer"))
        assert.strictEqual(yield* readLength(visitor, 6), "answer")
        assert.isFalse(yield* relay.undo(other.far))
        yield* other.target.end
        assert.isTrue(Option.isNone(yield* visitor.read))
        yield* Fiber.join(second)
        yield* drained
        assert.deepStrictEqual(yield* traffic, { tx: 21, rx: 6 })
      })
    )

    law(
      "an exchange that kept too much, or was committed, is not undone",
      Effect.gen(function* () {
        const relay = yield* Relay.Relay
        for (const committed of [false, true]) {
          const { far, near, target, visitor } = yield* line
          const relaying = yield* Effect.fork(relay.exchange(near, far, { keep: true }))
          const bytes = pattern(committed ? 10 : 20_000)
          yield* visitor.write(bytes)
          yield* readLength(target, bytes.length)
          if (committed) relay.commit(far)
          assert.isFalse(yield* relay.undo(far))
          yield* target.write(utf8("answer"))
          assert.strictEqual(yield* readLength(visitor, 6), "answer")
          yield* Effect.all([visitor.end, target.end])
          yield* Fiber.join(relaying)
        }
      })
    )

    law(
      "bytes that were read and put back are sent first",
      Effect.gen(function* () {
        const { exchange, far, near, target, visitor } = yield* line
        const bytes = pattern(100_000)
        yield* visitor.write(bytes.subarray(0, 50_000))
        yield* target.write(bytes.subarray(0, 10))
        const chunk = yield* Effect.map(near.read, Option.getOrThrow)
        near.unread(chunk.subarray(5))
        near.unread(chunk.subarray(0, 5))
        assert.strictEqual(yield* readable(far), "Bytes")
        const relaying = yield* Effect.fork(exchange)
        yield* Effect.zipRight(visitor.write(bytes.subarray(50_000)), visitor.end)
        yield* target.end
        assert.isTrue(same(yield* readAll(target), bytes))
        assert.isTrue(same(yield* readAll(visitor), bytes.subarray(0, 10)))
        yield* Fiber.join(relaying)
      })
    )

    law(
      "a connection that had ended before is relayed to its end",
      Effect.gen(function* () {
        const { exchange, near, target, visitor } = yield* line
        yield* Effect.zipRight(visitor.write(pattern(9)), visitor.end)
        const chunk = yield* Effect.map(near.read, Option.getOrThrow)
        assert.strictEqual(yield* readable(near), "End")
        near.unread(chunk)
        const relaying = yield* Effect.fork(exchange)
        assert.isTrue(same(yield* readAll(target), pattern(9)))
        yield* Effect.zipRight(target.write(pattern(3)), target.end)
        assert.isTrue(same(yield* readAll(visitor), pattern(3)))
        yield* Fiber.join(relaying)
      })
    )

    it.live.each([
      ["visitor", "target"],
      ["target", "visitor"]
    ] as const)("a reset by the %s resets the %s and fails the exchange", ([first, second]) =>
      run(
        world,
        Effect.gen(function* () {
          const joined = yield* line
          const relaying = yield* Effect.fork(Effect.flip(joined.exchange))
          yield* joined[first].write(pattern(10))
          yield* joined[second].read
          yield* joined[first].reset
          assert.strictEqual(yield* endOf(joined[second]), "Reset")
          assert.propertyVal(yield* Fiber.join(relaying), "_tag", "TransportError")
          yield* drained
          assert.strictEqual((yield* counts).live, 0)
        })
      )
    )

    it.live.each([
      ["near", "its first bytes", 10],
      ["far", "its first bytes", 10],
      ["near", "a while", 3_000_000],
      ["far", "a while", 3_000_000]
    ] as const)("a reset of the %s connection itself, after %s, resets both sides", ([end, , bytes]) =>
      run(
        world,
        Effect.gen(function* () {
          const joined = yield* line
          const { exchange, target, visitor } = joined
          const relaying = yield* Effect.fork(Effect.flip(exchange))
          yield* Effect.fork(Effect.ignore(visitor.write(pattern(bytes))))
          for (let received = 0; received < bytes;) received += Option.getOrThrow(yield* target.read).length
          yield* joined[end].reset
          assert.strictEqual(yield* endOf(visitor), "Reset")
          assert.strictEqual(yield* endOf(target), "Reset")
          assert.propertyVal(yield* Fiber.join(relaying), "_tag", "TransportError")
          assert.strictEqual((yield* counts).live, 0)
        })
      )
    )

    law(
      "a reset while the other side does not read ends the exchange",
      Effect.gen(function* () {
        const { exchange, target, visitor } = yield* line
        const relaying = yield* Effect.fork(Effect.flip(exchange))
        const pouring = yield* Effect.fork(Effect.ignore(Effect.forever(visitor.write(pattern(65_536)))))
        yield* target.write(pattern(1))
        yield* visitor.read
        yield* target.reset
        yield* Fiber.await(pouring)
        assert.propertyVal(yield* Fiber.join(relaying), "_tag", "TransportError")
      })
    )

    law(
      "a reader that stops stops the writer, and receives everything once it goes on",
      Effect.gen(function* () {
        const { exchange, target, visitor } = yield* line
        const relaying = yield* Effect.fork(exchange)
        const chunk = pattern(65_536)
        let sent = 0
        const pour = Effect.tap(
          visitor.write(chunk),
          Effect.sync(() => (sent += chunk.length))
        )
        const pouring = yield* Effect.fork(Effect.forever(pour))
        // The writer is stuck once 700 ms have brought nothing more.
        yield* Effect.repeat(
          Effect.suspend(() => {
            const before = sent
            return Effect.delay(
              Effect.sync(() => sent === before),
              "700 millis"
            )
          }),
          { until: (stuck) => stuck }
        )
        assert.isAbove(sent, 0)
        assert.isAtMost(sent, 32 * 1024 * 1024)
        // A chunk that is being written arrives although its writer was interrupted.
        yield* Fiber.interrupt(pouring)
        const received = yield* Effect.fork(readAll(target))
        yield* visitor.end
        const { length } = yield* Fiber.join(received)
        assert.isTrue(length === sent || length === sent + chunk.length, `${length} of ${sent}`)
        yield* Effect.zipRight(target.end, Fiber.join(relaying))
      })
    )

    law(
      "an exchange is reset when both sides were silent for the limit, and not before",
      Effect.gen(function* () {
        const { exchange, target, visitor } = yield* line
        yield* Effect.fork(Effect.ignore(readAll(target)))
        // Bytes in one direction are enough to keep it alive.
        yield* Effect.fork(Effect.replicateEffect(Effect.delay(visitor.write(pattern(1)), "200 millis"), 5))
        const lag = Lag.watch()
        const [took, error] = yield* Effect.timed(Effect.flip(exchange))
        const latest = 3000 + lag()
        assert.instanceOf(error, Relay.RelayIdle)
        assert.strictEqual(yield* endOf(visitor), "Reset")
        const millis = Duration.toMillis(took)
        assert.isTrue(millis >= 1300 && millis < latest, `${millis} of at most ${latest} ms`)
      }),
      Duration.millis(400)
    )

    law(
      "an interrupted exchange closes both sides",
      Effect.gen(function* () {
        const joined = yield* Scope.make()
        const { exchange, far, near, target, visitor } = yield* line
        const relaying = yield* Effect.forkIn(exchange, joined)
        yield* visitor.write(pattern(10))
        yield* target.read
        yield* Scope.close(joined, Exit.void)
        assert.isTrue(Exit.isInterrupted(yield* Fiber.await(relaying)))
        yield* Effect.zipRight(near.reset, far.reset)
        assert.strictEqual(yield* endOf(visitor), "Reset")
        assert.strictEqual(yield* endOf(target), "Reset")
        assert.strictEqual((yield* counts).live, 0)
      })
    )

    law(
      "the counters show a running exchange within two seconds",
      Effect.gen(function* () {
        const { exchange, target, visitor } = yield* line
        yield* Effect.fork(Effect.ignore(exchange))
        yield* visitor.write(pattern(1000))
        yield* target.read
        yield* target.write(pattern(10))
        const lag = Lag.watch()
        const seen = Effect.repeat(Effect.delay(traffic, "20 millis"), {
          until: ({ rx, tx }) => tx === 1000 && rx === 10
        })
        const [took] = yield* Effect.timed(seen)
        assert.isBelow(Duration.toMillis(took), 2500 + lag())
        assert.deepStrictEqual(yield* counts, { live: 1, total: 1 })
      })
    )

    it.live("exchanges leave no descriptor behind, however they end", () =>
      Effect.gen(function* () {
        const exchanges = runs(60, 1000)
        const before = descriptors()
        const visit = (index: number) =>
          Effect.gen(function* () {
            const { exchange, target, visitor } = yield* line
            const relaying = yield* Effect.fork(Effect.exit(exchange))
            yield* visitor.write(pattern(100))
            assert.isTrue(Option.isSome(yield* target.read))
            if (index % 4 === 0) yield* visitor.reset
            else if (index % 4 === 1) yield* Fiber.interrupt(relaying)
            else {
              yield* Effect.zipRight(visitor.end, readAll(target))
              yield* index % 4 === 2 ? target.end : target.reset
            }
            yield* Fiber.await(relaying)
          }).pipe(Effect.scoped)
        yield* run(
          world,
          Effect.gen(function* () {
            yield* Effect.forEach(Array.from({ length: exchanges }).keys(), visit, { concurrency: 20, discard: true })
            assert.deepStrictEqual(yield* counts, { live: 0, total: exchanges })
            yield* turn
            // A relay thread keeps some of its own.
            assert.isAtMost(descriptors(), before + 20)
          })
        )
        yield* turn
        assert.isAtMost(descriptors(), before)
      })
    )
  })
