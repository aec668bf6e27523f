import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import { Crypto } from "../../src/transport/Crypto.js"
import * as NodeCrypto from "../../src/node/process/NodeCrypto.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as Simulation from "../../src/testing/Simulation.js"

const delays = FastCheck.array(FastCheck.nat(100), { maxLength: 50 })

/** Fibers that sleep and record when they woke. Those that would sleep for longer than `patience` are interrupted. */
const sleepers = (delays: ReadonlyArray<number>, patience: number) =>
  Effect.gen(function* () {
    const woke: Array<readonly [at: number, delay: number]> = []
    yield* Effect.forEach(
      delays,
      (delay) =>
        Effect.sleep(delay).pipe(
          Effect.zipRight(Clock.currentTimeMillis),
          Effect.map((at) => woke.push([at, delay])),
          Effect.timeoutOption(patience)
        ),
      { concurrency: "unbounded" }
    )
    return woke
  })

/** The order in which three fibers ran. */
const order = (seed: number) => {
  const seen: Array<number> = []
  Simulation.run(
    Effect.forEach([1, 2, 3], (n) => Effect.sync(() => seen.push(n)), { concurrency: "unbounded" }),
    { seed }
  )
  return seen.join("")
}

/** The sum after two fibers have each added one, without a lock. */
const race = (seed: number) => {
  let balance = 0
  const add = Effect.map(
    Effect.flatMap(
      Effect.sync(() => balance),
      Effect.succeed
    ),
    (seen) => {
      balance = seen + 1
    }
  )
  Simulation.run(Effect.all([add, add], { concurrency: "unbounded" }), { seed, turn: 4 })
  return balance
}

describe("Simulation", () => {
  it.prop(
    "wakes every sleeper on time and in order, and never one that was interrupted",
    [FastCheck.integer(), delays, FastCheck.nat(100)],
    ([seed, delays, patience]) => {
      const { exit, leftover } = Simulation.run(sleepers(delays, patience), { seed })
      const woke = Exit.getOrElse(exit, (cause) => assert.fail(Cause.pretty(cause)))
      const due = delays.filter((delay) => delay < patience)
      const late = delays.filter((delay) => delay <= patience)
      assert.deepStrictEqual(
        woke.map(([at]) => at),
        woke.map(([, delay]) => delay)
      )
      const times = woke.map(([at]) => at)
      assert.deepStrictEqual(
        times,
        times.toSorted((left, right) => left - right)
      )
      assert.isAtLeast(woke.length, due.length)
      assert.isAtMost(woke.length, late.length)
      assert.strictEqual(leftover, 0)
    }
  )

  it.prop(
    "gives equal histories for equal seeds, with randomness and short turns too",
    [FastCheck.integer(), delays, FastCheck.integer({ min: 1, max: 100 })],
    ([seed, delays, turn]) => {
      const history = () => {
        const order: Array<number> = []
        const note = (delay: number) =>
          Effect.gen(function* () {
            yield* Effect.sleep(Math.round((yield* Random.next) * 3))
            order.push(delay)
          })
        const result = Simulation.run(Effect.forEach(delays, note, { concurrency: "unbounded" }), { seed, turn })
        return [order, result.steps, result.elapsed]
      }
      assert.deepStrictEqual(history(), history())
    }
  )

  it("shows other orders with other seeds", () => {
    assert.strictEqual(new Set(Array.from({ length: 100 }, (_, seed) => order(seed))).size, 6)
  })

  it("finds a lost update with some seed and short turns, and reproduces it with that seed", () => {
    const seed = Array.from({ length: 1000 }, (_, seed) => seed).find((seed) => race(seed) === 1)
    assert.isDefined(seed)
    assert.strictEqual(race(seed ?? 0), 1)
  })

  it("simulates years without taking real time", () => {
    const { elapsed, exit } = Simulation.run(Effect.as(Effect.sleep("3650 days"), "done"), { seed: 1 })
    assert.deepStrictEqual(exit, Exit.succeed("done"))
    assert.strictEqual(elapsed, Duration.toMillis("3650 days"))
  })

  it("reports a program in which every fiber waits as a Deadlock, with its time, and runs its finalizers", () => {
    let closed = false
    const program = Effect.sleep("5 seconds").pipe(
      Effect.zipRight(Effect.flatMap(Deferred.make<void>(), Deferred.await)),
      Effect.ensuring(
        Effect.sync(() => {
          closed = true
        })
      )
    )
    const { elapsed, exit, leftover } = Simulation.run(program, { seed: 1 })
    assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause) && exit.cause.error.reason === "Stuck")
    assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes("no timer is left at 5000 ms, after"))
    assert.deepStrictEqual([elapsed, closed, leftover], [5000, true, 0])
  })

  it("reports an endless sleep as a Deadlock", () => {
    const { exit } = Simulation.run(Effect.sleep(Duration.infinity), { seed: 1 })
    assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause) && exit.cause.error.reason === "Stuck")
  })

  it("stops an endless program after maxSteps, whether or not time advances in it", () => {
    for (const step of [Effect.void, Effect.yieldNow(), Effect.sleep(1)]) {
      const { exit, steps } = Simulation.run(Effect.forever(step), { seed: 1, maxSteps: 1000 })
      assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause) && exit.cause.error.reason === "Busy")
      assert.strictEqual(steps, 1000)
    }
  })

  it("reports a defect of the main fiber, and of a fiber that no other waits for", () => {
    const boom = Effect.dieMessage("boom")
    const forked = Effect.zipRight(Effect.forkDaemon(boom), Effect.sleep(1))
    for (const program of [boom, forked, Effect.zipRight(forked, Effect.fail("too"))]) {
      const { exit } = Simulation.run(program, { seed: 1 })
      assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes("boom"))
    }
  })

  it("counts the fibers that outlive the program", () => {
    const program = Effect.gen(function* () {
      yield* Effect.forkDaemon(Effect.sleep(1))
      yield* Effect.forkDaemon(Effect.flatMap(Deferred.make<void>(), Deferred.await))
      yield* Effect.forkDaemon(Effect.void)
      yield* Effect.fork(Effect.sleep(1))
      yield* Fiber.join(yield* Effect.fork(Effect.void))
    })
    assert.strictEqual(Simulation.run(program, { seed: 1 }).leftover, 2)
  })
})

const same = FastCheck.uint8Array({ minLength: 1, maxLength: 100 })

describe("Crypto", () => {
  it.prop("computes the same HMAC simulated and real", [same, same], ([key, data]) => {
    const mac = Effect.map(Crypto, ({ hmac }) => Buffer.from(hmac(key, data)).toString("hex"))
    const real = Effect.runSync(Effect.provide(mac, NodeCrypto.layer))
    assert.strictEqual(Effect.runSync(Effect.provide(mac, SimCrypto.layer(1))), real)
    assert.lengthOf(real, 64)
  })

  it.prop("draws simulated bytes from the seed alone", [FastCheck.nat(), FastCheck.nat(100)], ([seed, length]) => {
    const draw = (seed: number) =>
      Effect.runSync(
        Effect.flatMap(Crypto, ({ randomBytes }) => Effect.all([randomBytes(length), randomBytes(length)])).pipe(
          Effect.provide(SimCrypto.layer(seed))
        )
      )
    assert.deepStrictEqual(draw(seed), draw(seed))
    const [first, second] = draw(seed)
    assert.lengthOf(first, length)
    if (length > 8) {
      assert.notDeepEqual(first, second)
      assert.notDeepEqual(first, draw(seed + 1)[0])
    }
  })

  it.live("stretches with scrypt, N = 2^15, r = 8, p = 1", () =>
    Effect.gen(function* () {
      const { randomBytes, stretch } = yield* Crypto
      const text = new TextEncoder()
      const key = yield* stretch(text.encode("password"), text.encode("NaCl"))
      assert.strictEqual(
        Buffer.from(key).toString("hex"),
        "3fa85118fffe9732da7f4c63ef61f5c6458144d036401f8829dd4e5b2c50c51f"
      )
      assert.lengthOf(yield* randomBytes(7), 7)
    }).pipe(Effect.provide(NodeCrypto.layer))
  )
})
