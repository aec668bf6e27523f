import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import { createSocket } from "node:dgram"
import { networkInterfaces } from "node:os"
import type { IpAddress } from "../../src/node/socket/NodeHosts.js"
import * as Lookups from "../../src/node/socket/Lookups.js"
import * as Resolver from "../../src/node/socket/Resolver.js"

const ipv4 = (host: string): IpAddress => ({ host, family: 4 })

/** A resolver whose lookups and probes the test answers, and whose clock it sets. */
const makeWorld = (options?: { readonly concurrency?: number }) => {
  const pending: Array<{ readonly name: string; readonly done: Parameters<Lookups.Lookup>[1] }> = []
  const probes = new Map<string, (answers: boolean) => void>()
  const world = { now: 0, started: new Array<string>() }
  const resolver = Resolver.make({
    ...options,
    now: () => world.now,
    lookup: (name, done) => {
      world.started.push(name)
      pending.push({ name, done })
    },
    probe: (name, done) => void probes.set(name, done)
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
  return { ...resolver, answer, begin, hosts, pending, probes, world }
}

const error = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code })

describe("Resolver", () => {
  it.effect("knows the addresses that it would use without a lookup, and begins none to find out", () =>
    Effect.gen(function* () {
      const { answer, begin, known, world } = makeWorld()
      assert.deepStrictEqual(known("192.0.2.7"), [ipv4("192.0.2.7")])
      assert.deepStrictEqual(known("localhost")?.[0], ipv4("127.0.0.1"))
      assert.isUndefined(known("fe80::1%nowhere"))
      assert.isUndefined(known("name"))
      assert.deepStrictEqual(world.started, [])
      const resolving = yield* begin("name")
      answer("name", "192.0.2.1")
      yield* Fiber.join(resolving)
      assert.deepStrictEqual(known("name"), [ipv4("192.0.2.1")])
      world.now = 5 * 60_000
      assert.isUndefined(known("name"))
    })
  )

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

  it.effect("names that hang block one lookup at most, from the first time on", () =>
    Effect.gen(function* () {
      const { answer, begin, hosts, probes, world } = makeWorld({ concurrency: 2 })
      const known = yield* begin("known")
      answer("known", "192.0.2.9")
      yield* Fiber.join(known)
      yield* begin("hangs1")
      yield* begin("hangs2")
      const first = yield* begin("first")
      assert.deepStrictEqual(
        [world.started, [...probes.keys()]],
        [
          ["known", "hangs1"],
          ["hangs2", "first"]
        ]
      )
      probes.get("first")?.(true)
      answer("first", "192.0.2.1")
      assert.strictEqual(yield* Fiber.join(first), "192.0.2.1")
      probes.get("hangs2")?.(false)
      world.now = 10_000
      assert.strictEqual(yield* hosts("known"), "192.0.2.9")
      assert.match((yield* hosts("localhost")) ?? "", /^127/)
      assert.deepStrictEqual(world.started, ["known", "hangs1", "first"])
      answer("hangs1", error("EAI_AGAIN"))
      assert.deepStrictEqual(world.started, ["known", "hangs1", "first", "hangs2"])
    })
  )

  it.effect("a name that was quick needs no probe, unless another one hangs now", () =>
    Effect.gen(function* () {
      const { answer, begin, probes, world } = makeWorld({ concurrency: 3 })
      for (const name of ["quick1", "quick2"]) {
        yield* begin(name)
        answer(name, "192.0.2.1")
      }
      yield* begin("hangs")
      yield* begin("quick1", 0)
      assert.deepStrictEqual(world.started, ["quick1", "quick2", "hangs", "quick1"])
      world.now = 1001
      const late = yield* begin("quick2", 0)
      assert.deepStrictEqual([world.started.length, [...probes.keys()]], [4, ["quick2"]])
      probes.get("quick2")?.(true)
      answer("quick2", "192.0.2.2")
      assert.strictEqual(yield* Fiber.join(late), "192.0.2.2")
    })
  )

  it("any answer of a name server counts as one, and silence does not", async () => {
    const ask = async (answers: boolean) => {
      const server = createSocket("udp4", (bytes, { address, port }) => {
        // The question with the flags of an answer: no such name.
        if (answers)
          server.send(
            Buffer.concat([bytes.subarray(0, 2), Buffer.from([0x81, 0x83]), bytes.subarray(4)]),
            port,
            address
          )
      })
      await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve))
      const probe = Lookups.makeProbe({
        servers: [`127.0.0.1:${server.address().port}`],
        timeoutMillis: answers ? 60_000 : 20
      })
      const result = await new Promise<boolean>((resolve) => probe("name.example", resolve))
      server.close()
      return result
    }
    assert.isTrue(await ask(true))
    assert.isFalse(await ask(false))
  })

  it.effect("an unknown interface in an IPv6 zone is an error, and a known one is not", () =>
    Effect.gen(function* () {
      const { hosts } = makeWorld()
      for (const zone of ["none9", "999999999", "0"]) {
        assert.strictEqual(yield* hosts(`fe80::1%${zone}`), "ENODEV")
      }
      for (const name of Object.keys(networkInterfaces())) {
        assert.strictEqual(yield* hosts(`fe80::1%${name}`), `fe80::1%${name}`)
      }
    })
  )
})
