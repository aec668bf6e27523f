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
import * as Relay from "../../src/relay/Relay.js"
import { Transport } from "../../src/transport/Transport.js"
import * as Throttle from "../../src/relay/Throttle.js"
import * as LiveCertificates from "./LiveCertificates.js"
import {
  converse,
  descriptors,
  hearing,
  line,
  pattern,
  readAll,
  run,
  speech,
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

/** Grants shares of this size at once, and tells what it keeps. */
const granting = (share: number, keep: (bytes: number) => void): Throttle.Bucket => ({
  take: (wanted) =>
    Effect.zipRight(
      Effect.yieldNow(),
      Effect.sync(() => {
        const bytes = Math.min(wanted, share)
        keep(bytes)
        return bytes
      })
    ),
  takeWhole: () => Effect.die("no datagrams here"),
  refund: (bytes) => keep(-bytes)
})

/** With the reactor in hand. */
const withReactor = <A, E>(program: (reactor: Reactor.Reactor) => Parameters<typeof run<A, E>>[1]) =>
  Effect.scoped(
    Effect.gen(function* () {
      const found = yield* Effect.orDie(kernel)
      const reactor = yield* Reactor.make(found, { threads: 2 })
      const layer: World["layer"] = (options) => KernelRelay.layer({ ...options, kernel: found, reactor })
      return yield* run({ ...viaKernel, layer }, program(reactor))
    })
  )

suite("Relay through this process", { transport: NodeTransport.layer, layer: Relay.layer })

describe.runIf(process.platform === "linux")("on Linux", () => {
  suite("Relay through the kernel", viaKernel)
  suite("Relay through the kernel, of TLS", {
    ...viaKernel,
    transport: Layer.provide(overTls(certificate), viaKernel.transport)
  })

  describe("KernelRelay", () => {
    it.live("takes the sockets over, and the peers notice nothing of it", () =>
      run(
        viaKernel,
        Effect.gen(function* () {
          const { exchange, far, near, target, visitor } = yield* line
          const heard = yield* Effect.fork(Effect.zip(readAll(visitor), readAll(target), { concurrent: true }))
          const relaying = yield* Effect.fork(exchange)
          yield* Effect.yieldNow()
          assert.strictEqual((yield* Effect.flip(near.read)).reason, "Closed")
          assert.strictEqual((yield* Effect.flip(far.read)).reason, "Closed")
          // An end, or a reset, would have come by now.
          yield* Effect.sleep("100 millis")
          assert.isTrue(Option.isNone(yield* Fiber.poll(heard)))
          yield* visitor.write(pattern(7))
          yield* Effect.zipRight(visitor.end, target.end)
          const [atVisitor, atTarget] = yield* Fiber.join(heard)
          assert.deepStrictEqual([atVisitor.length, atTarget.length], [0, 7])
          yield* Fiber.join(relaying)
        })
      )
    )

    it.live.prop(
      "at a rate, all passes, and is what the buckets were asked for less what they were given back",
      [speech, speech, FastCheck.integer({ min: 600, max: 300_000 })],
      ([up, down, share]) =>
        Effect.suspend(() => {
          const books = { tx: 0, rx: 0 }
          const throttle = Layer.succeed(Throttle.Throttle, {
            tx: granting(share, (bytes) => (books.tx += bytes)),
            rx: granting(share, (bytes) => (books.rx += bytes))
          })
          return run(
            { ...viaKernel, throttle },
            Effect.gen(function* () {
              const [atTarget, atVisitor] = yield* converse(yield* line, up, down)
              assert.deepStrictEqual([atTarget.length, atVisitor.length], [up.bytes, down.bytes])
              assert.deepStrictEqual(books, { tx: up.bytes, rx: down.bytes })
            })
          )
        }),
      { fastCheck: { numRuns: runs(6, 12), interruptAfterTimeLimit: 10_000 } }
    )

    it.live("without a grant no more than a little passes, one way, and the other way is open", () =>
      Effect.gen(function* () {
        const wanted = yield* Deferred.make<void>()
        const never: Throttle.Bucket = {
          take: () => Effect.zipRight(Deferred.succeed(wanted, void 0), Effect.never),
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
            yield* Deferred.await(wanted)
            const heard = yield* Effect.map(target.read, Option.getOrThrow)
            assert.isAtMost(heard.length, 8192)
            yield* Fiber.interrupt(relaying)
            assert.strictEqual(yield* hearing(target), "Reset")
          })
        )
      })
    )

    it.live("a thread that dies resets what it carried, is counted, and another takes over", () =>
      Effect.gen(function* () {
        const before = descriptors()
        const one = yield* Deferred.make<void>()
        yield* withReactor((reactor) =>
          Effect.gen(function* () {
            const relay = yield* Relay.Relay
            const lines = yield* Effect.replicateEffect(line, 30)
            const relaying = yield* Effect.forEach(lines, ({ exchange }) => Effect.fork(Effect.flip(exchange)))
            // They last: what is over soon never comes to a thread.
            yield* Effect.forEach(lines, ({ target, visitor }) =>
              Effect.replicateEffect(Effect.zip(visitor.write(pattern(9)), target.read), 20)
            )
            // Bulk is under way too, in pipes.
            const [first] = lines
            yield* Effect.fork(Effect.ignore(Effect.forever(first?.visitor.write(pattern(65_536)) ?? Effect.void)))
            yield* Effect.fork(
              Effect.ignore(
                Effect.forever(Effect.zipRight(first?.target.read ?? Effect.void, Deferred.succeed(one, void 0)))
              )
            )
            yield* Deferred.await(one)
            yield* reactor.kill
            const deaths = yield* Effect.replicateEffect(reactor.died, 2)
            assert.strictEqual(
              deaths.reduce((sum, { exchanges }) => sum + exchanges, 0),
              30
            )
            for (const fiber of relaying) assert.propertyVal(yield* Fiber.join(fiber), "_tag", "TransportError")
            for (const { target } of lines.slice(1)) assert.strictEqual(yield* hearing(target), "Reset")
            for (const { visitor } of lines.slice(1)) assert.strictEqual(yield* hearing(visitor), "Reset")
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
