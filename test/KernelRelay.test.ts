import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Meter from "../src/Meter.js"
import { kernel } from "../src/node/kernel/Kernel.js"
import * as KernelRelay from "../src/node/kernel/KernelRelay.js"
import * as Reactor from "../src/node/kernel/Reactor.js"
import * as KernelTransport from "../src/node/kernel/KernelTransport.js"
import * as NodeTransport from "../src/node/NodeTransport.js"
import * as Relay from "../src/Relay.js"
import { Transport } from "../src/Transport.js"
import * as Throttle from "../src/Throttle.js"
import * as LiveCertificates from "./LiveCertificates.js"
import { descriptors, hearing, line, pattern, readAll, run, suite, turn, type World } from "./Relay.compliance.js"
import { overTls } from "./Tls.compliance.js"

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

    it.live("leaves all to this process where a rate is set", () =>
      Effect.gen(function* () {
        const { exchange, near, target, visitor } = yield* line
        yield* Effect.fork(Effect.ignore(exchange))
        yield* Effect.zipRight(visitor.write(pattern(1000)), visitor.end)
        assert.strictEqual((yield* readAll(target)).length, 1000)
        assert.strictEqual(yield* near.peek, "End")
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Layer.merge(
            Layer.merge(viaKernel.transport, Logger.remove(Logger.defaultLogger)),
            Layer.provide(viaKernel.layer({}), Layer.merge(Meter.layer, Throttle.layer({ rate: 1_000_000 })))
          )
        )
      )
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
