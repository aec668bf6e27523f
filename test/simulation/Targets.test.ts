import { assert, describe, it } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Targets from "../../src/relay/Targets.js"
import { serve, Transport, TransportError } from "../../src/transport/Transport.js"
import { readAll } from "../Bytes.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

interface World {
  /** Dials for a visitor and returns which target answered; the visitor stays until the scope closes. */
  readonly visit: (visitor?: string) => Effect.Effect<number, TransportError, Scope.Scope>
  /** Visitors that each target serves now. */
  readonly live: ReadonlyArray<number>
  /** Targets that the tunnel skips now, by its log. */
  readonly skipped: ReadonlySet<string>
  readonly dial: Targets.Targets["Type"]["dial"]
  /** When each target was tried for a visitor, in milliseconds. */
  readonly tries: ReadonlyArray<Array<number>>
  /** Connections that each target has accepted. */
  readonly accepted: ReadonlyArray<{ count: number }>
  readonly up: (target: number) => Effect.Effect<void, TransportError, Scope.Scope>
  readonly down: (target: number) => Effect.Effect<void>
  /** No packet arrives, and nothing fails. */
  readonly swallow: (target: number) => Effect.Effect<void>
  readonly heal: (target: number) => Effect.Effect<void>
  readonly log: ReadonlyArray<string>
}

interface Options {
  readonly seed: number
  /** Their names, `t<number>`. */
  readonly targets: readonly [number, ...ReadonlyArray<number>]
  readonly balance?: Targets.Balance
  readonly check?: Duration.Duration
  readonly within?: Duration.Duration
  readonly link?: SimNetwork.Link
}

const world = <A, E>(options: Options, program: (world: World) => Effect.Effect<A, E, Scope.Scope>): A => {
  const { balance, check, link, seed, within = Duration.seconds(10) } = options
  const network = SimNetwork.make(link)
  const addresses = Arr.map(options.targets, (name) => Address.make(`t${name}`, 80))
  const log: Array<string> = []
  const tries = addresses.map((): Array<number> => [])
  const accepted = addresses.map(() => ({ count: 0 }))
  const live = addresses.map(() => 0)
  const skipped = new Set<string>()
  const indexOf = (address: Address.Address) => addresses.findIndex(({ host }) => host === address.host)
  const host = (target: number) => addresses[target]?.host ?? ""
  const up = (target: number) =>
    Effect.gen(function* () {
      const transport = yield* Effect.provide(Transport, network.host(host(target)))
      const listener = yield* transport.listen(Address.make("", 80))
      const handler = serve(listener, (connection) => {
        const count = accepted[target]
        if (count !== undefined) count.count++
        return Effect.ignore(readAll(connection))
      })
      yield* Effect.forkScoped(handler)
    })
  const main = Effect.gen(function* () {
    for (const { host } of addresses) yield* Effect.provide(Transport, network.host(host))
    const transport = yield* Transport
    const { dial, probe } = yield* Targets.Targets
    yield* probe
    const open = (target: Address.Address) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        tries[indexOf(target)]?.push(now)
        return transport.connect(target)
      })
    return yield* program({
      visit: (visitor = "visitor") =>
        Effect.gen(function* () {
          const { remote } = yield* dial(Address.make(visitor, 1000), open, within)
          const target = indexOf(remote)
          const count = (change: number) => Effect.sync(() => (live[target] = (live[target] ?? 0) + change))
          yield* Effect.acquireRelease(count(1), () => count(-1))
          return target
        }),
      live,
      skipped,
      dial,
      tries,
      accepted,
      up,
      down: (target) => network.crash(host(target)),
      swallow: (target) => network.partition("tunnel", host(target)),
      heal: (target) => network.heal("tunnel", host(target)),
      log
    })
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.provideMerge(
        Targets.layer({ targets: addresses, balance, check }),
        Layer.merge(Deadlines.layer, network.host("tunnel"))
      )
    ),
    // Hosts are named before the first probe.
    (main) =>
      Effect.zipRight(
        Effect.forEach(addresses, ({ host }) => Effect.provide(Transport, network.host(host))),
        main
      ),
    Effect.provide(
      Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ annotations, logLevel, message }) => {
          const [text, target] = [String(message), String(Option.getOrThrow(HashMap.get(annotations, "target")))]
          log.push(`${logLevel.label} ${text}`)
          if (text.startsWith("target failed")) skipped.add(target)
          else skipped.delete(target)
        })
      )
    )
  )
  return Simulated.run({ seed, network, turn: 64 }, () => main)
}

const names = (count: number): readonly [number, ...ReadonlyArray<number>] => [0, ...Arr.range(1, count).slice(0, -1)]
const all = { concurrency: "unbounded" } as const
const seconds = (millis: number) => Math.round(millis / 1000)
const ascending = (left: number, right: number) => left - right
const spread = (counts: ReadonlyArray<number>) => Math.max(...counts) - Math.min(...counts)
const seed = FastCheck.integer()
const few = FastCheck.integer({ min: 1, max: 5 })

describe("Targets", () => {
  it.prop(
    "rr takes the targets exactly in turn, also when visitors come all at once",
    [seed, few, few, few],
    ([seed, n, k, rounds]) => {
      const targets = names(n)
      const [alone, together, live] = world({ seed, targets, link: { latency: 5, jitter: 5 } }, (world) =>
        Effect.gen(function* () {
          yield* Effect.forEach(targets, world.up)
          const alone = yield* Effect.replicateEffect(world.visit(), k)
          const together = yield* Effect.all(Arr.replicate(world.visit(), n * rounds), all)
          return [alone, together, [...world.live]] as const
        })
      )
      assert.deepStrictEqual(
        alone,
        Arr.makeBy(k, (index) => index % n)
      )
      for (const target of targets) assert.strictEqual(together.filter((one) => one === target).length, rounds)
      assert.isAtMost(spread(live), 1)
    },
    { fastCheck: { numRuns: runs(4, 25) } }
  )

  it.prop(
    "least takes one of the targets with the fewest exchanges, whichever visitors have left",
    [seed, few, FastCheck.array(FastCheck.option(FastCheck.nat(), { freq: 1 }), { maxLength: 40 })],
    ([seed, n, moves]) => {
      const targets = names(n)
      world({ seed, targets, balance: "least" }, (world) =>
        Effect.gen(function* () {
          yield* Effect.forEach(targets, world.up)
          const staying: Array<Scope.CloseableScope> = []
          for (const move of moves) {
            const live = [...world.live]
            if (move === null) {
              const scope = yield* Scope.make()
              staying.push(scope)
              const chosen = yield* Scope.extend(world.visit(), scope)
              assert.strictEqual(live[chosen], Math.min(...live))
            } else {
              const [leaver] = staying.splice(move % Math.max(1, staying.length), 1)
              if (leaver !== undefined) yield* Scope.close(leaver, Exit.void)
            }
          }
          yield* Effect.forEach(staying, (scope) => Scope.close(scope, Exit.void))
        })
      )
    }
  )

  it.prop(
    "least balances the targets, also when visitors come all at once and to uneven ones",
    [
      seed,
      few,
      FastCheck.array(FastCheck.boolean(), { minLength: 23, maxLength: 23 }),
      FastCheck.integer({ min: 1, max: 23 })
    ],
    ([seed, n, leaves, more]) => {
      const targets = names(n)
      world({ seed, targets, balance: "least", link: { latency: 5, jitter: 5 } }, (world) =>
        Effect.gen(function* () {
          yield* Effect.forEach(targets, world.up)
          const staying = yield* Scope.make()
          const leaving = yield* Scope.make()
          const visits = leaves.map((leave) => Scope.extend(world.visit(), leave ? leaving : staying))
          yield* Effect.all(visits, all)
          assert.isAtMost(spread(world.live), 1)
          yield* Scope.close(leaving, Exit.void)
          let expected = world.live.toSorted(ascending)
          for (let count = 0; count < more; count++) {
            const [fewest = 0, ...others] = expected
            expected = [fewest + 1, ...others].toSorted(ascending)
          }
          yield* Effect.all(Arr.replicate(Scope.extend(world.visit(), staying), more), all)
          assert.deepStrictEqual(world.live.toSorted(ascending), expected)
          yield* Scope.close(staying, Exit.void)
        })
      )
    },
    { fastCheck: { numRuns: runs(4, 25) } }
  )

  const hosts = FastCheck.uniqueArray(FastCheck.ipV4(), { minLength: 1, maxLength: 20 })
  const choices = (seed: number, targets: Options["targets"], visitors: ReadonlyArray<string>) =>
    world({ seed, targets, balance: "hash" }, (world) =>
      Effect.gen(function* () {
        yield* Effect.forEach(targets, (_, index) => world.up(index))
        return yield* Effect.forEach(visitors, world.visit, all)
      })
    ).map((index) => targets[index])

  it.prop(
    "hash always gives a visitor the same target, and removing a target moves only its visitors",
    [seed, seed, FastCheck.integer({ min: 2, max: 5 }), FastCheck.nat(), hosts],
    ([seed, other, n, gone, hosts]) => {
      const targets = names(n)
      const before = choices(seed, targets, hosts)
      assert.deepStrictEqual(choices(other, targets, hosts), before)
      const rest = targets.filter((name) => name !== gone % n)
      const after = Arr.isNonEmptyReadonlyArray(rest) ? choices(other, [rest[0], ...rest.slice(1)], hosts) : []
      for (const [index, target] of before.entries()) {
        if (target !== gone % n) assert.strictEqual(after[index], target)
      }
    },
    { fastCheck: { numRuns: runs(4, 25) } }
  )

  it("hash spreads the visitors of one network evenly", () => {
    const hosts = Arr.makeBy(600, (index) => `10.0.${index >> 8}.${index & 255}`)
    const chosen = choices(1, [0, 1, 2], hosts)
    for (const target of [0, 1, 2]) {
      assert.approximately(chosen.filter((one) => one === target).length, 200, 50)
    }
  })

  const state = FastCheck.constantFrom("up" as const, "down" as const, "silent" as const)
  it.prop(
    "a visitor is served while one target answers, however the others fail",
    {
      seed,
      states: FastCheck.array(state, { minLength: 1, maxLength: 4 }),
      at: FastCheck.nat(4),
      balance: FastCheck.constantFrom(...Targets.Balance.literals),
      within: FastCheck.integer({ min: 1, max: 30 })
    },
    ({ at, balance, seed, states, within }) => {
      const targets = names(states.length + 1)
      const each = states.toSpliced(at, 0, "up")
      world({ seed, targets, balance, within: Duration.seconds(within), link: { latency: 2 } }, (world) =>
        Effect.gen(function* () {
          for (const target of targets) {
            if (each[target] !== "down") yield* world.up(target)
            if (each[target] === "silent") yield* world.swallow(target)
          }
          const silent = each.filter((state) => state === "silent").length
          const [took, served] = yield* Effect.timed(world.visit())
          assert.strictEqual(each[served], "up")
          assert.isBelow(Duration.toMillis(took), Math.min(3000 * silent, within * 1000) + 50)
          // The targets that failed are skipped now.
          const [again, next] = yield* Effect.timed(world.visit())
          if (balance === "hash" && silent < 2) {
            assert.strictEqual(next, served)
            assert.isBelow(Duration.toMillis(again), 50)
          }
          yield* Effect.forEach(targets, world.heal)
        })
      )
    }
  )

  it.prop(
    "a target that failed is tried again by one visitor at a time, after a wait that doubles each time",
    [seed],
    ([seed]) => {
      const [tries, log, live] = world({ seed, targets: [0, 1], within: Duration.seconds(6) }, (world) =>
        Effect.gen(function* () {
          yield* world.up(0)
          yield* world.up(1)
          yield* world.swallow(0)
          const crowd = Effect.scoped(Effect.all(Arr.replicate(world.visit(), 3), all))
          const pour = Effect.forkScoped(crowd).pipe(Effect.zipRight(Effect.sleep(250)), Effect.replicateEffect(640))
          yield* Effect.scoped(Effect.zipLeft(pour, Effect.sleep("5 seconds")))
          const tries = [...(world.tries[0] ?? [])]
          yield* world.heal(0)
          yield* Effect.sleep("31 seconds")
          yield* Effect.replicateEffect(world.visit(), 6)
          return [tries, world.log, [...world.live]] as const
        })
      )
      // Visitors that came before the first failure was known tried it as well; each try takes 3 s to fail.
      const later = tries.filter((at) => at > 3000)
      // Their failures, up to 6 s, counted once.
      assert.approximately(later[0] ?? 0, 4250, 250)
      const gaps = later.slice(1).map((at, index) => seconds(at - (later[index] ?? 0)))
      assert.deepStrictEqual(
        gaps,
        [2, 4, 8, 16, 30, 30, 30].map((wait) => 3 + wait)
      )
      assert.deepStrictEqual(log, [
        "WARN target failed (connect t0:80: timed out); skipping it for 1s",
        "INFO target answers again"
      ])
      assert.deepStrictEqual(live, [3, 3])
    },
    { fastCheck: { numRuns: runs(1, 3) } }
  )

  it.prop(
    "visitors skip a target while one of them tries it again",
    [seed],
    ([seed]) => {
      const [tried, served, after] = world({ seed, targets: [0, 1, 2] }, (world) =>
        Effect.gen(function* () {
          yield* world.up(1)
          yield* world.up(2)
          yield* world.visit()
          yield* world.up(0)
          yield* world.swallow(0)
          yield* Effect.sleep("2 seconds")
          const crowd = yield* Effect.fork(Effect.all(Arr.replicate(world.visit(), 12), all))
          yield* Effect.sleep("1 seconds")
          const tried = world.tries[0]?.length
          yield* world.heal(0)
          const served = yield* Fiber.join(crowd)
          return [tried, served, yield* Effect.all(Arr.replicate(world.visit(), 12), all)] as const
        })
      )
      const of = (target: number) => (one: number) => one === target
      assert.deepStrictEqual([tried, served.filter(of(0)).length], [2, 1])
      assert.strictEqual(after.filter(of(0)).length, 4)
    },
    { fastCheck: { numRuns: runs(3, 15) } }
  )

  it.prop(
    "when all targets fail, each is tried once, and the dial fails in time with the last failure",
    [seed, few, FastCheck.integer({ min: 1, max: 20 }), FastCheck.boolean()],
    ([seed, n, within, silent]) => {
      const targets = names(n)
      const [took, errors, tries] = world(
        { seed, targets, within: Duration.seconds(within), link: { latency: 1 } },
        (world) =>
          Effect.gen(function* () {
            if (silent) yield* Effect.forEach(targets, world.swallow)
            // The second visitor comes when all targets are skipped.
            const [took, errors] = yield* Effect.timed(Effect.replicateEffect(Effect.flip(world.visit()), 2))
            yield* Effect.forEach(targets, world.heal)
            return [Duration.toMillis(took), errors, world.tries] as const
          })
      )
      for (const { reason } of errors) assert.strictEqual(reason, silent ? "TimedOut" : "Refused")
      assert.strictEqual(errors[0]?.address.host, `t${n - 1}`)
      assert.isTrue(tries.every((times) => times.length === 2))
      assert.approximately(took, silent ? within * 2000 : 4 * n, 1)
    }
  )

  it("when all targets are skipped, the one due soonest is tried first", () => {
    const tries = world({ seed: 1, targets: [0, 1, 2], within: Duration.seconds(9) }, (world) =>
      Effect.gen(function* () {
        yield* world.swallow(0)
        yield* Effect.flip(world.visit())
        yield* Effect.flip(world.visit())
        yield* world.heal(0)
        return world.tries
      })
    )
    // All failed once by 3 s, 0 the first of them. Then 0 timed out again.
    assert.deepStrictEqual(tries, [
      [0, 3000],
      [3000, 6000],
      [3000, 6000]
    ])
  })

  it.prop(
    "probes notice that a target failed, and that it answers again, without a visitor",
    [seed, few],
    ([seed, n]) => {
      const check = Duration.seconds(8)
      const [gone, served, back, tries, log] = world({ seed, targets: names(n), check }, (world) =>
        Effect.gen(function* () {
          yield* Effect.forEach(names(n), world.up)
          yield* Effect.sleep("1 seconds")
          assert.strictEqual(world.skipped.size, 0)
          yield* world.down(0)
          yield* Effect.sleep("8 seconds")
          const gone = world.skipped.has("t0:80")
          // Also at the very instant of a probe.
          const served = n === 1 ? [] : yield* Effect.replicateEffect(Effect.delay(world.visit(), 500), 90)
          const tries = world.tries[0]?.length
          yield* world.up(0)
          yield* Effect.sleep("8100 millis")
          const back = !world.skipped.has("t0:80")
          yield* Effect.replicateEffect(world.visit(), n)
          return [gone, served, back, [tries, world.tries[0]?.length], world.log] as const
        })
      )
      assert.deepStrictEqual([gone, back], [true, true])
      assert.isFalse(served.includes(0))
      assert.deepStrictEqual(tries, [0, 1])
      assert.deepStrictEqual(log, [
        "WARN target failed (connect t0:80: connection refused); skipping it for 8s",
        "INFO target answers again"
      ])
    },
    { fastCheck: { numRuns: runs(3, 15) } }
  )

  it("probes start at once, come as often as asked, and are not exchanges", () => {
    const check = Duration.seconds(5)
    world({ seed: 1, targets: [0, 1], balance: "least", check, link: { latency: 1 } }, (world) =>
      Effect.gen(function* () {
        yield* world.up(0)
        yield* Effect.sleep("61 seconds")
        assert.strictEqual(world.accepted[0]?.count, 13)
        yield* world.up(1)
        yield* Effect.sleep("5 seconds")
        yield* Effect.replicateEffect(world.visit(), 4)
        assert.deepStrictEqual([world.live, [...world.skipped]], [[2, 2], []])
      })
    )
  })

  it.prop(
    "an interrupted dial leaves nothing open, and leaves its target to the next visitor",
    [seed, few, FastCheck.nat(40), FastCheck.boolean()],
    ([seed, n, after, silent]) => {
      const targets = names(n)
      world({ seed, targets, link: { latency: 7, jitter: 3 } }, (world) =>
        Effect.gen(function* () {
          if (n > 1) yield* world.visit().pipe(Effect.flip, Effect.scoped)
          yield* Effect.sleep("2 seconds")
          yield* Effect.forEach(targets, world.up)
          if (silent) yield* Effect.forEach(targets, world.swallow)
          const crowd = yield* Effect.fork(Effect.scoped(Effect.all(Arr.replicate(world.visit(), 4), all)))
          yield* Effect.sleep(after)
          yield* Fiber.interrupt(crowd)
          yield* Effect.forEach(targets, world.heal)
          const served = yield* Effect.all(Arr.replicate(world.visit(), n), all)
          assert.deepStrictEqual(new Set(served), new Set(targets))
        })
      )
    }
  )

  it.prop(
    "an interrupted dial no longer counts as an exchange",
    [seed, FastCheck.integer({ min: 2, max: 5 }), FastCheck.nat(20)],
    ([seed, n, after]) => {
      const targets = names(n)
      world({ seed, targets, balance: "least", link: { latency: 15 } }, (world) =>
        Effect.gen(function* () {
          yield* Effect.forEach(targets, world.up)
          const leaving = yield* Scope.make()
          assert.strictEqual(yield* Scope.extend(world.visit(), leaving), 0)
          yield* Effect.replicateEffect(world.visit(), n - 1)
          yield* Scope.close(leaving, Exit.void)
          // Target 0 alone has no visitor.
          const dial = yield* Effect.fork(Effect.scoped(world.visit()))
          yield* Effect.sleep(after)
          yield* Fiber.interrupt(dial)
          assert.strictEqual(yield* world.visit(), 0)
        })
      )
    }
  )

  it("what a failed attempt opened is closed before the next one", () => {
    const events = world({ seed: 1, targets: [0, 1] }, ({ dial }) =>
      Effect.gen(function* () {
        const events: Array<string> = []
        const open = (target: Address.Address) =>
          Effect.gen(function* () {
            const { host } = target
            yield* Effect.acquireRelease(
              Effect.sync(() => events.push(`open ${host}`)),
              () => Effect.sync(() => events.push(`close ${host}`))
            )
            if (host === "t0") {
              return yield* new TransportError({ operation: "read", reason: "Reset", address: target })
            }
          })
        yield* Effect.scoped(
          Effect.zipRight(
            dial(Address.make("v", 1), open, Duration.seconds(1)),
            Effect.sync(() => events.push("served"))
          )
        )
        return events
      })
    )
    assert.deepStrictEqual(events, ["open t0", "close t0", "open t1", "served", "close t1"])
  })

  it("a lack of file descriptors here does not count as a failure of the target", () => {
    const [error, skipped] = world({ seed: 1, targets: [0, 1] }, ({ dial, skipped }) =>
      Effect.gen(function* () {
        const open = (address: Address.Address) =>
          new TransportError({ operation: "connect", reason: "Exhausted", address })
        const error = yield* Effect.flip(dial(Address.make("v", 1), open, Duration.seconds(1)))
        return [error, skipped.size] as const
      })
    )
    assert.strictEqual(error.reason, "Exhausted")
    assert.strictEqual(skipped, 0)
  })

  it("a single target gets all the time, is tried each time, and its failure is not logged", () => {
    const [took, log, live] = world({ seed: 1, targets: [0], within: Duration.seconds(20) }, (world) =>
      Effect.gen(function* () {
        yield* world.swallow(0)
        const [took] = yield* Effect.timed(Effect.flip(world.visit()))
        yield* world.heal(0)
        return [Duration.toSeconds(took), world.log, world.live] as const
      })
    )
    assert.deepStrictEqual([took, log, live], [20, [], [0]])
  })
})
