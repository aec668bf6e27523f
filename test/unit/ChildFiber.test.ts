import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as ChildFiber from "../../src/core/ChildFiber.js"
import * as Simulated from "../Simulated.js"

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
  it("a loop ends when it is interrupted during the finalizer of a step", () => {
    assert.strictEqual(Simulated.run({ seed: 1 }, () => interruptedInFinalizer(ChildFiber.run))._tag, "Some")
  })

  it("an interruption waits for the finalizers of the step", () => {
    let closed = false
    const step = Effect.scoped(
      Effect.zipRight(
        Effect.addFinalizer(() =>
          Effect.delay(
            Effect.sync(() => (closed = true)),
            "1 second"
          )
        ),
        Effect.never
      )
    )
    const program = Effect.gen(function* () {
      const fiber = yield* Effect.fork(ChildFiber.run(step))
      yield* Effect.sleep("1 second")
      yield* Fiber.interrupt(fiber)
      return closed
    })
    assert.isTrue(Simulated.run({ seed: 1 }, () => program))
  })

  it("succeeds and fails like the step", () => {
    const program = Effect.all([ChildFiber.run(Effect.succeed(1)), Effect.flip(ChildFiber.run(Effect.fail(2)))])
    assert.deepStrictEqual(
      Simulated.run({ seed: 1 }, () => program),
      [1, 2]
    )
  })
})
