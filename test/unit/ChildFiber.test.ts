import { assert, describe } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as ChildFiber from "../../src/core/ChildFiber.js"
import { it } from "../Simulated.js"

/** A loop whose steps fail, each with a slow finalizer. The loop is interrupted while a finalizer runs. */
const interruptedInFinalizer = (run: <A, E>(step: Effect.Effect<A, E>) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const closing = yield* Deferred.make<void>()
    const step = Effect.scoped(
      Effect.zipRight(
        Effect.addFinalizer(() => Effect.zipRight(Deferred.succeed(closing, undefined), Effect.sleep("1 second"))),
        Effect.fail("over")
      )
    )
    const loop = yield* Effect.forkDaemon(Effect.forever(Effect.ignore(run(step))))
    yield* Deferred.await(closing)
    return yield* Effect.timeoutOption(Fiber.interrupt(loop), "1 minute")
  })

describe("ChildFiber.run", () => {
  it.simulated("a loop ends when it is interrupted during the finalizer of a step", {}, () =>
    Effect.map(interruptedInFinalizer(ChildFiber.run), ({ _tag }) => assert.strictEqual(_tag, "Some"))
  )

  it.simulated("an interruption waits for the finalizers of the step", {}, () =>
    Effect.gen(function* () {
      let closed = false
      const close = Effect.delay(
        Effect.sync(() => (closed = true)),
        "1 second"
      )
      const step = Effect.scoped(
        Effect.zipRight(
          Effect.addFinalizer(() => close),
          Effect.never
        )
      )
      const fiber = yield* Effect.fork(ChildFiber.run(step))
      yield* Effect.sleep("1 second")
      yield* Fiber.interrupt(fiber)
      assert.isTrue(closed)
    })
  )

  it.simulated("succeeds and fails like the step", {}, () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* ChildFiber.run(Effect.succeed(1)), 1)
      assert.strictEqual(yield* Effect.flip(ChildFiber.run(Effect.fail(2))), 2)
    })
  )
})
