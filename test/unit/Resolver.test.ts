import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import { networkInterfaces } from "node:os"
import type { IpAddress } from "../../src/node/socket/NodeHosts.js"
import * as Resolver from "../../src/node/socket/Resolver.js"

const ipv4 = (host: string): IpAddress => ({ host, family: 4 })

/** A resolver whose lookups the test answers, and whose clock it sets. */
const makeWorld = (options?: { readonly concurrency?: number }) => {
  const pending: Array<{ readonly name: string; readonly done: Parameters<Resolver.Lookup>[1] }> = []
  const world = { now: 0, started: new Array<string>() }
  const resolver = Resolver.make({
    ...options,
    now: () => world.now,
    lookup: (name, done) => {
      world.started.push(name)
      pending.push({ name, done })
    }
  })
  const answer = (name: string, result: string | NodeJS.ErrnoException) => {
    const index = pending.findIndex((lookup) => lookup.name === name)
    const [lookup] = index < 0 ? [] : pending.splice(index, 1)
    if (lookup === undefined) return assert.fail(`no lookup of ${name}`)
    if (typeof result === "string") lookup.done(null, [ipv4(result)])
    else lookup.done(result, [])
  }
  const hosts = (name: string, lifetime?: Duration.DurationInput) =>
    resolver.resolve(name, lifetime === undefined ? undefined : Duration.decode(lifetime)).pipe(
      Effect.map(({ addresses }) => addresses.map(({ host }) => host).join()),
      Effect.mapError(({ code }) => code),
      Effect.either,
      Effect.map(Either.merge)
    )
  /** Begins to resolve, and goes on when the lookup is under way. */
  const begin = (name: string, lifetime?: Duration.DurationInput) =>
    Effect.tap(Effect.fork(hosts(name, lifetime)), () => Effect.yieldNow())
  return { ...resolver, answer, begin, hosts, pending, world }
}

const error = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code })

describe("Resolver", () => {
  it.effect("localhost, names below it and IP addresses are not looked up", () =>
    Effect.gen(function* () {
      const { hosts, world } = makeWorld()
      for (const name of ["localhost", "LocalHost", "localhost.", "api.localhost", "", "*"]) {
        assert.match((yield* hosts(name)) ?? "", /^127\.0\.0\.1(,::1)?$/)
      }
      assert.strictEqual(yield* hosts("192.0.2.7"), "192.0.2.7")
      assert.strictEqual(yield* hosts("2001:db8::7"), "2001:db8::7")
      assert.deepStrictEqual(world.started, [])
    })
  )

  it.effect("a name has one lookup at a time, which all callers share", () =>
    Effect.gen(function* () {
      const { answer, begin, world } = makeWorld()
      const callers = yield* Effect.forEach(["Name", "name", "name"], (name) => begin(name))
      yield* Fiber.interrupt(callers[0] ?? assert.fail())
      assert.deepStrictEqual(world.started, ["name"])
      answer("name", "192.0.2.1")
      assert.strictEqual(yield* Fiber.join(callers[1] ?? assert.fail()), "192.0.2.1")
      assert.strictEqual(yield* Fiber.join(callers[2] ?? assert.fail()), "192.0.2.1")
    })
  )

  it.effect("a failure is remembered for a second", () =>
    Effect.gen(function* () {
      const { answer, begin, hosts, world } = makeWorld()
      const first = yield* begin("name")
      answer("name", error("ENOTFOUND"))
      assert.strictEqual(yield* Fiber.join(first), "ENOTFOUND")
      world.now = 999
      assert.strictEqual(yield* hosts("name"), "ENOTFOUND")
      assert.strictEqual(world.started.length, 1)
      world.now = 1000
      const again = yield* begin("name")
      answer("name", "192.0.2.1")
      assert.strictEqual(yield* Fiber.join(again), "192.0.2.1")
    })
  )

  it.effect("addresses are used for their lifetime, then refreshed in the background, then waited for", () =>
    Effect.gen(function* () {
      const { answer, begin, hosts, world } = makeWorld()
      const first = yield* begin("name", "1 minute")
      answer("name", "192.0.2.1")
      yield* Fiber.join(first)
      world.now = 59_999
      assert.strictEqual(yield* hosts("name", "1 minute"), "192.0.2.1")
      assert.strictEqual(world.started.length, 1)
      world.now = 60_000
      assert.strictEqual(yield* hosts("name", "1 minute"), "192.0.2.1")
      assert.strictEqual(yield* hosts("name", "1 minute"), "192.0.2.1")
      assert.strictEqual(world.started.length, 2)
      answer("name", "192.0.2.2")
      assert.strictEqual(yield* hosts("name", "1 minute"), "192.0.2.2")
      world.now = 180_000
      const late = yield* begin("name", "1 minute")
      answer("name", "192.0.2.3")
      assert.strictEqual(yield* Fiber.join(late), "192.0.2.3")
      const always = yield* begin("name", 0)
      answer("name", "192.0.2.4")
      assert.strictEqual(yield* Fiber.join(always), "192.0.2.4")
    })
  )

  it.effect("the last addresses stay in use while there is no answer, and not when the name no longer exists", () =>
    Effect.gen(function* () {
      const { answer, begin, world } = makeWorld()
      const first = yield* begin("name")
      answer("name", "192.0.2.1")
      yield* Fiber.join(first)
      world.now = 3_600_000
      const unanswered = yield* begin("name")
      answer("name", error("EAI_AGAIN"))
      assert.strictEqual(yield* Fiber.join(unanswered), "192.0.2.1")
      world.now += 1000
      const removed = yield* begin("name")
      answer("name", error("ENOTFOUND"))
      assert.strictEqual(yield* Fiber.join(removed), "ENOTFOUND")
    })
  )

  it.effect("names that are slow to resolve leave one lookup to the others", () =>
    Effect.gen(function* () {
      const { answer, begin, world } = makeWorld({ concurrency: 2 })
      yield* begin("slow1")
      yield* begin("slow2")
      const waiting = yield* begin("fast")
      assert.deepStrictEqual(world.started, ["slow1", "slow2"])
      world.now = 10_000
      answer("slow1", error("EAI_AGAIN"))
      answer("fast", "192.0.2.1")
      assert.strictEqual(yield* Fiber.join(waiting), "192.0.2.1")
      answer("slow2", error("EAI_AGAIN"))
      world.now = 20_000
      yield* begin("slow1")
      yield* begin("slow2")
      assert.deepStrictEqual(world.started.slice(3), ["slow1"])
      const other = yield* begin("other")
      answer("other", "192.0.2.2")
      assert.strictEqual(yield* Fiber.join(other), "192.0.2.2")
      answer("slow1", error("EAI_AGAIN"))
      assert.deepStrictEqual(world.started.slice(3), ["slow1", "other", "slow2"])
    })
  )

  it.effect("an unknown interface in an IPv6 zone is an error, and a known one is not", () =>
    Effect.gen(function* () {
      const { hosts } = makeWorld()
      assert.strictEqual(yield* hosts("fe80::1%none9"), "ENODEV")
      for (const name of Object.keys(networkInterfaces())) {
        assert.strictEqual(yield* hosts(`fe80::1%${name}`), `fe80::1%${name}`)
      }
    })
  )
})
