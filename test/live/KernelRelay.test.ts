import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { kernel } from "../../src/node/kernel/Kernel.js"
import * as KernelRelay from "../../src/node/kernel/KernelRelay.js"
import * as Reactor from "../../src/node/kernel/Reactor.js"
import * as KernelTransport from "../../src/node/kernel/KernelTransport.js"
import * as NodeTransport from "../../src/node/socket/NodeTransport.js"
import * as PortableRelay from "../../src/relay/PortableRelay.js"
import * as Relay from "../../src/relay/Relay.js"
import { Transport } from "../../src/transport/Transport.js"
import * as Throttle from "../../src/relay/Throttle.js"
import * as LiveCertificates from "./LiveCertificates.js"
import {
  transferBoth,
  descriptors,
  endOf,
  line,
  pattern,
  readAll,
  run,
  transfer,
  suite,
  turn,
  type World
} from "../compliance/Relay.js"
import { overTls } from "../compliance/Tls.js"
import { runs } from "../Runs.js"

const viaKernel: World = {
  transport: Layer.effect(
    Transport,
    Effect.map(Effect.orDie(kernel), (kernel) => KernelTransport.make({ kernel }))
  ),
  layer: (options) =>
    Layer.unwrapScoped(
      Effect.gen(function* () {
        const found = yield* Effect.orDie(kernel)
        return KernelRelay.layer({ ...options, kernel: found, reactor: yield* KernelRelay.reactor(found) })
      })
    )
}

const certificate = Effect.runSync(
  Effect.cached(LiveCertificates.certificate({ issuer: "itself", names: ["nodepass"] }))
)

/** Grants at most `shareBytes` at once, and reports each grant, and what is given back as a negative one. */
const granting = (shareBytes: number, onGrant: (bytes: number) => void): Throttle.Bucket => ({
  take: (wanted) =>
    Effect.zipRight(
      Effect.yieldNow(),
      Effect.sync(() => {
        const bytes = Math.min(wanted, shareBytes)
        onGrant(bytes)
        return bytes
      })
    ),
  takeWhole: () => Effect.die("a relay of TCP has no datagrams"),
  refund: (bytes) => onGrant(-bytes)
})

/** Runs a program that uses the reactor of its relay. */
const withReactor = <A, E>(program: (reactor: Reactor.Reactor) => Parameters<typeof run<A, E>>[1]) =>
  Effect.scoped(
    Effect.gen(function* () {
      const found = yield* Effect.orDie(kernel)
      const reactor = yield* Reactor.make(found, { threads: 2 })
      const layer: World["layer"] = (options) => KernelRelay.layer({ ...options, kernel: found, reactor })
      return yield* run({ ...viaKernel, layer }, program(reactor))
    })
  )

suite("Relay through this process", { transport: NodeTransport.layer, layer: PortableRelay.layer })

describe.runIf(process.platform === "linux")("on Linux", () => {
  suite("Relay through the kernel", viaKernel)
  suite("Relay through the kernel, over TLS", {
    ...viaKernel,
    keeps: false,
    transport: Layer.provide(overTls(certificate), viaKernel.transport)
  })

  describe("KernelRelay", () => {
    it.live("takes the sockets over, and the peers see neither an end nor a reset", () =>
      run(
        viaKernel,
        Effect.gen(function* () {
          const { exchange, far, near, target, visitor } = yield* line
          const received = yield* Effect.fork(Effect.zip(readAll(visitor), readAll(target), { concurrent: true }))
          const relaying = yield* Effect.fork(exchange)
          yield* Effect.yieldNow()
          assert.strictEqual((yield* Effect.flip(near.read)).reason, "Closed")
          assert.strictEqual((yield* Effect.flip(far.read)).reason, "Closed")
          // Long enough for an end or a reset to arrive.
          yield* Effect.sleep("100 millis")
          assert.isTrue(Option.isNone(yield* Fiber.poll(received)))
          yield* visitor.write(pattern(7))
          yield* Effect.zipRight(visitor.end, target.end)
          const [atVisitor, atTarget] = yield* Fiber.join(received)
          assert.deepStrictEqual([atVisitor.length, atTarget.length], [0, 7])
          yield* Fiber.join(relaying)
        })
      )
    )

    it.live.prop(
      "with a rate limit all bytes pass, and the buckets grant as many bytes, less what is given back",
      [transfer, transfer, FastCheck.integer({ min: 600, max: 300_000 })],
      ([up, down, shareBytes]) =>
        Effect.suspend(() => {
          const granted = { tx: 0, rx: 0 }
          const throttle = Layer.succeed(Throttle.Throttle, {
            tx: granting(shareBytes, (bytes) => (granted.tx += bytes)),
            rx: granting(shareBytes, (bytes) => (granted.rx += bytes))
          })
          return run(
            { ...viaKernel, throttle },
            Effect.gen(function* () {
              const [atTarget, atVisitor] = yield* transferBoth(yield* line, up, down)
              assert.deepStrictEqual([atTarget.length, atVisitor.length], [up.bytes, down.bytes])
              assert.deepStrictEqual(granted, { tx: up.bytes, rx: down.bytes })
            })
          )
        }),
      { fastCheck: { numRuns: runs(2, 12) } }
    )

    it.live("without a grant only the initial credit passes in one direction, and the other direction is open", () =>
      Effect.gen(function* () {
        const requested = yield* Deferred.make<void>()
        const never: Throttle.Bucket = {
          take: () => Effect.zipRight(Deferred.succeed(requested, void 0), Effect.never),
          takeWhole: () => Effect.never,
          refund: () => {}
        }
        const throttle = Layer.succeed(Throttle.Throttle, { tx: never, rx: granting(1000, () => {}) })
        yield* run(
          { ...viaKernel, throttle },
          Effect.gen(function* () {
            const { exchange, target, visitor } = yield* line
            const relaying = yield* Effect.fork(exchange)
            yield* visitor.write(pattern(200_000))
            yield* Effect.zipRight(target.write(pattern(200_000)), target.end)
            assert.strictEqual((yield* readAll(visitor)).length, 200_000)
            yield* Deferred.await(requested)
            const received = yield* Effect.map(target.read, Option.getOrThrow)
            assert.isAtMost(received.length, 8192)
            yield* Fiber.interrupt(relaying)
            assert.strictEqual(yield* endOf(target), "Reset")
          })
        )
      })
    )

    it.live("threads that start, move bulk and end, again and again, leave nothing", () =>
      Effect.gen(function* () {
        // The poller stays open once the kernel is loaded.
        yield* Effect.orDie(kernel)
        const before = descriptors()
        yield* Effect.repeatN(
          withReactor(() =>
            Effect.gen(function* () {
              const isMoving = yield* Deferred.make<void>()
              const { exchange, target, visitor } = yield* line
              yield* Effect.fork(Effect.ignore(exchange))
              yield* Effect.fork(Effect.ignore(Effect.forever(visitor.write(pattern(65_536)))))
              yield* Effect.fork(
                Effect.ignore(Effect.forever(Effect.zipRight(target.read, Deferred.succeed(isMoving, void 0))))
              )
              yield* Deferred.await(isMoving)
              yield* Effect.replicateEffect(turn, 20)
            })
          ),
          7
        )
        yield* turn
        assert.isAtMost(descriptors(), before)
      })
    )

    it.live(
      "when a thread fails, its exchanges are reset and counted, and another thread serves the next exchange",
      () =>
        Effect.gen(function* () {
          const before = descriptors()
          const isMoving = yield* Deferred.make<void>()
          yield* withReactor((reactor) =>
            Effect.gen(function* () {
              const relay = yield* Relay.Relay
              const lines = yield* Effect.replicateEffect(line, 30)
              const relaying = yield* Effect.forEach(lines, ({ exchange }) => Effect.fork(Effect.flip(exchange)))
              // Many messages: an exchange that ends soon never reaches a relay thread.
              yield* Effect.forEach(lines, ({ target, visitor }) =>
                Effect.replicateEffect(Effect.zip(visitor.write(pattern(9)), target.read), 20)
              )
              // One exchange carries bulk through a pipe.
              const [first] = lines
              yield* Effect.fork(Effect.ignore(Effect.forever(first?.visitor.write(pattern(65_536)) ?? Effect.void)))
              yield* Effect.fork(
                Effect.ignore(
                  Effect.forever(Effect.zipRight(first?.target.read ?? Effect.void, Deferred.succeed(isMoving, void 0)))
                )
              )
              yield* Deferred.await(isMoving)
              yield* reactor.fail
              const failures = yield* Effect.replicateEffect(reactor.failure, 2)
              assert.strictEqual(
                failures.reduce((sum, { exchanges }) => sum + exchanges, 0),
                30
              )
              for (const fiber of relaying) assert.propertyVal(yield* Fiber.join(fiber), "_tag", "TransportError")
              for (const { target } of lines.slice(1)) assert.strictEqual(yield* endOf(target), "Reset")
              for (const { visitor } of lines.slice(1)) assert.strictEqual(yield* endOf(visitor), "Reset")
              assert.deepStrictEqual(yield* relay.count, { live: 0, total: 30 })

              const { exchange, target, visitor } = yield* line
              const again = yield* Effect.fork(exchange)
              yield* Effect.all([visitor.write(pattern(5)), visitor.end, target.end])
              assert.strictEqual((yield* readAll(target)).length, 5)
              yield* Fiber.join(again)
            })
          )
          yield* turn
          assert.isAtMost(descriptors(), before)
        })
    )
  })
})
