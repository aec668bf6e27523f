import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as Simulated from "../Simulated.js"

const world = <A, E>(seed: number, program: (deadlines: Deadlines.Deadlines["Type"]) => Effect.Effect<A, E>): A => {
  return Simulated.run({ seed, turn: 64 }, () => Effect.flatMap(Deadlines.make, program))
}

const millis = FastCheck.oneof(FastCheck.nat(9), FastCheck.double({ min: 0, max: 9, noNaN: true }))
const wait = FastCheck.record({
  begins: millis,
  lasts: FastCheck.oneof(FastCheck.constantFrom(3, 5), millis),
  cancelsAfter: FastCheck.option(millis)
})

describe("Deadlines", () => {
  it.prop(
    "a timeout runs its effect when it is due, and never when it was cancelled before",
    [FastCheck.integer(), FastCheck.array(wait, { maxLength: 20 })],
    ([seed, waits]) => {
      const ended = world(seed, ({ after }) =>
        Effect.gen(function* () {
          const ended: Array<number | undefined> = waits.map(() => undefined)
          const begin = ({ begins, cancelsAfter, lasts }: (typeof waits)[number], index: number) =>
            Effect.gen(function* () {
              yield* Effect.sleep(begins)
              const clock = yield* Effect.clock
              const since = clock.unsafeCurrentTimeMillis()
              const cancel = after(
                Duration.millis(lasts),
                Effect.sync(() => {
                  ended[index] = clock.unsafeCurrentTimeMillis() - since
                })
              )
              if (cancelsAfter !== null) yield* Effect.sleep(cancelsAfter)
              if (cancelsAfter !== null) cancel()
            })
          yield* Effect.forEach(waits, begin, { concurrency: "unbounded", discard: true })
          yield* Effect.sleep(20)
          return ended
        })
      )
      for (const [index, { cancelsAfter, lasts }] of waits.entries()) {
        const took = ended[index]
        if (cancelsAfter === null || cancelsAfter > lasts + 1e-3) assert.approximately(took ?? Infinity, lasts, 1e-3)
        if (cancelsAfter !== null && cancelsAfter < lasts - 1e-3) assert.isUndefined(took)
      }
    }
  )

  it.prop(
    "a limit returns what the effect returns in time, and otherwise interrupts it and waits for its finalizers",
    [FastCheck.integer(), FastCheck.nat(9), FastCheck.nat(9), FastCheck.option(FastCheck.nat(9)), FastCheck.boolean()],
    ([seed, takes, lasts, interrupted, fails]) => {
      const [outcome, running, took] = world(seed, ({ limit }) =>
        Effect.gen(function* () {
          let running = 0
          const work = Effect.acquireUseRelease(
            Effect.sync(() => running++),
            () => Effect.zipRight(Effect.sleep(takes), fails ? Effect.fail("failed") : Effect.succeed("done")),
            () =>
              Effect.delay(
                Effect.sync(() => running--),
                Duration.millis(1)
              )
          )
          const limited = limit(work, { duration: Duration.millis(lasts), onTimeout: () => "late" })
          const fiber = yield* Effect.fork(limited)
          const [took, exit] = yield* Effect.timed(
            interrupted === null
              ? Fiber.await(fiber)
              : Effect.delay(Fiber.interrupt(fiber), Duration.millis(interrupted))
          )
          const outcome = Exit.match(exit, {
            onFailure: (cause) => (cause._tag === "Fail" ? cause.error : "interrupted"),
            onSuccess: (value) => value
          })
          return [outcome, running, Duration.toMillis(took)] as const
        })
      )
      assert.strictEqual(running, 0)
      const others = Math.min(lasts, interrupted ?? Infinity)
      if (takes + 1 < others) assert.strictEqual(outcome, fails ? "failed" : "done")
      if (lasts < takes && lasts + 1 < (interrupted ?? Infinity)) assert.strictEqual(outcome, "late")
      if (interrupted !== null && interrupted < Math.min(takes, lasts)) assert.strictEqual(outcome, "interrupted")
      if (interrupted === null) assert.isAtMost(took, Math.min(takes, lasts) + 1)
    }
  )
})
