import { assert, describe } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import { constVoid } from "effect/Function"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as Router from "../../src/tunnel/Router.js"
import type { Session } from "../../src/tunnel/Session.js"
import * as Settings from "../../src/transport/Settings.js"
import type { Visit } from "../../src/wire/Signal.js"
import { PoolClosed } from "../../src/pool/IdleConnections.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { answer, clientConfig, readUntilEnd, serverConfig, visitorsPort } from "./worlds/SmallWorld.js"
import * as Simulated from "../Simulated.js"
import { it } from "../Simulated.js"

const seconds = (count: number) => Effect.sleep(Duration.seconds(count))
const patience = Duration.toSeconds(Settings.defaults.poolGetTimeout)
const visitor: Visit = { protocol: "tcp", visitor: Address.make("198.51.100.1", 5), entry: Option.none() }

/** A session that gives `capacity` visitors a connection, each after 5 ms, and fails the others when it ends. */
const makeSession = (name: string, capacity: number, visitors: "local" | "remote" = "local") =>
  Effect.gen(function* () {
    const permits = yield* Effect.makeSemaphore(capacity)
    const over = yield* Effect.makeLatch(false)
    const connection = { name } as never
    const open = Effect.raceFirst(
      Effect.as(Effect.zipRight(permits.take(1), Effect.sleep(Duration.millis(5))), connection),
      Effect.zipRight(over.await, new PoolClosed())
    )
    const never = Effect.never
    let isOver = false
    let publish: (attached: boolean) => void = constVoid
    const session: Session["Type"] = {
      open: () => open,
      openStream: () => Effect.succeedNone,
      openStreamNow: () => undefined,
      run: never,
      flush: Effect.void,
      abandon: Effect.void,
      visitors,
      stats: never,
      attach: () => never,
      isAttached: () => !isOver,
      watch: (listener) => {
        publish = listener
        return () => (publish = constVoid)
      },
      trouble: Effect.succeedNone,
      received: () => -1,
      roundTrip: Effect.succeedNone,
      probe: () => never,
      leave: () => Effect.void,
      restartPeer: Effect.void,
      snapshot: () => ({ outbox: { next: 0, signals: [] }, received: -1 }),
      reserve: () => undefined,
      suspend: never
    }
    const end = Effect.suspend(() => {
      isOver = true
      publish(false)
      return over.open
    })
    return { session, end }
  })

const options = {
  turn: 64,
  layers: Router.layer().pipe(Layer.provideMerge(Layer.merge(Deadlines.layer, Settings.layer())))
}
const run = <A, E>(seed: number, program: Effect.Effect<A, E, Router.Router | Scope.Scope>): A =>
  Simulated.run({ ...options, seed }, () => program)

describe("Router", () => {
  it.prop(
    "serves every visitor through an attached session, however many sessions come and go, if one is attached in time",
    [
      FastCheck.integer(),
      FastCheck.array(FastCheck.tuple(FastCheck.nat(3000), FastCheck.nat(3000)), { maxLength: 6 }),
      FastCheck.array(FastCheck.nat(15_000), { maxLength: 12 })
    ],
    ([seed, sessions, visits]) => {
      const opened = run(
        seed,
        Effect.gen(function* () {
          const link = yield* Router.Router
          const visitors = yield* Effect.forEach(visits, (arrives) =>
            Effect.fork(Effect.scoped(Effect.delay(link.open(visitor), Duration.millis(arrives))))
          )
          for (const [name, [gap, stands]] of sessions.entries()) {
            yield* Effect.sleep(Duration.millis(gap))
            const { end, session } = yield* makeSession(String(name), 2)
            yield* Effect.scoped(Effect.zipRight(link.use(session), Effect.sleep(Duration.millis(stands))))
            yield* end
          }
          const { session } = yield* makeSession("last", 1000)
          yield* link.use(session)
          return yield* Effect.forEach(visitors, Fiber.join)
        })
      )
      assert.strictEqual(opened.length, visits.length)
    }
  )

  it.prop(
    "a visitor that is not served in time fails with `Busy` if a session is attached, else with `Away`",
    [FastCheck.integer(), FastCheck.boolean(), FastCheck.nat(29_000)],
    ([seed, stands, after]) => {
      const [took, error] = run(
        seed,
        Effect.gen(function* () {
          const link = yield* Router.Router
          const { session } = yield* makeSession("full", 0)
          const come = Effect.delay(link.use(session), Duration.millis(after))
          // The other session is added and removed again.
          yield* Effect.forkScoped(stands ? come : Effect.scoped(come))
          return yield* Effect.timed(Effect.flip(Effect.scoped(link.open(visitor))))
        })
      )
      assert.deepStrictEqual([Duration.toSeconds(took), error.reason], [patience, stands ? "Busy" : "Away"])
    }
  )

  it.simulated("uses no session whose visitors connect to the other side", options, () =>
    Effect.gen(function* () {
      const link = yield* Router.Router
      const there = yield* makeSession("remote", 1, "remote")
      yield* link.use(there.session)
      const stands = yield* Effect.timeoutOption(link.ready, Duration.zero)
      const waiting = yield* Effect.fork(Effect.scoped(link.open(visitor)))
      yield* seconds(1)
      assert.isTrue(Option.isNone(yield* waiting.poll))
      yield* link.use((yield* makeSession("local", 1)).session, { rank: 1 })
      assert.deepStrictEqual([yield* Fiber.join(waiting), Option.isSome(stands)], [{ name: "local" } as never, true])
    })
  )

  it.simulated("a session that is removed late does not affect its successor", options, () =>
    Effect.gen(function* () {
      const link = yield* Router.Router
      const [before, after] = yield* Effect.all([makeSession("before", 1), makeSession("after", 1)])
      const scope = yield* Scope.make()
      yield* Scope.extend(link.use(before.session), scope)
      yield* link.use(after.session)
      yield* Scope.close(scope, Exit.void)
      const ready = yield* Effect.timeoutOption(link.ready, Duration.zero)
      assert.deepStrictEqual([(yield* link.sessions)[0] === after.session, Option.isSome(ready)], [true, true])
    })
  )
})

describe("a visitor of a tunnel", () => {
  it("that arrives between two sessions is served by the next", () => {
    const [answer, took] = SmallWorld.run({ link: { latency: 10 } }, ({ start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const first = start("client", clientConfig)
        yield* Effect.scoped(Effect.zipRight(first, seconds(3)))
        // A launch that crosses the `Bye` of the first client would be refused.
        yield* seconds(1)
        const visiting = yield* Effect.fork(Effect.timed(visit))
        yield* seconds(20)
        yield* start("client", clientConfig)
        const [took, answer] = yield* Fiber.join(visiting)
        return [answer, Duration.toSeconds(took)] as const
      })
    )
    assert.strictEqual(answer, "hi")
    assert.isTrue(took >= 20 && took <= 21, `${took} s`)
  })

  it("whose session ends while it waits for the pool is served by the next", () => {
    const answer = SmallWorld.run({ link: { latency: 10 } }, ({ attach, start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const idler = yield* attach("idler", "0123456789abcdef")
        const visiting = yield* Effect.fork(visit)
        yield* seconds(1)
        yield* idler.connection.reset
        yield* start("client", clientConfig)
        return yield* Fiber.join(visiting)
      })
    )
    assert.strictEqual(answer, "hi")
  })

  it.each([
    ["no client is there", "Away", "the other side is away"],
    ["the client fills no pool", "Busy", "the pool has no idle connection"]
  ] as const)("is reset after the wait, and counted, when %s", (_, reason, sentence) => {
    const [stayed, refused, lines] = SmallWorld.run({}, ({ attach, connect, log, start }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        if (reason === "Busy") {
          yield* Effect.forkScoped(answer(yield* attach("client", "0123456789abcdef")))
        }
        const visitor = yield* connect("visitor", visitorsPort)
        const { seconds } = yield* readUntilEnd(visitor)
        const { refused } = yield* server.checkpoint
        return [seconds, refused["pool"], log.filter((line) => line.includes(sentence)).length] as const
      })
    )
    assert.deepStrictEqual([stayed, refused, lines], [patience, 1, 1])
  })
})
