import { assert, describe } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Failover from "../../src/tunnel/Failover.js"
import type { TooManyKeys } from "../../src/tunnel/Keyring.js"
import * as Settings from "../../src/transport/Settings.js"
import type * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Transport from "../../src/transport/Transport.js"
import type * as Tunnel from "../../src/tunnel/Tunnel.js"
import * as TunnelHost from "./worlds/TunnelHost.js"
import { readAll, readText, utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"
import { it } from "../Simulated.js"

const names = ["first", "second", "third"] as const
const settings: Partial<Settings.Settings["Type"]> = {
  handshakeTimeout: Duration.seconds(3),
  reportInterval: Duration.seconds(2),
  resumeGrace: Duration.seconds(8),
  keyGrace: Duration.seconds(15),
  shutdownTimeout: Duration.seconds(1)
}
/** Silence is detected after 2.5 report intervals; then a second for each other server that is away, and a handshake. */
const detection = 2.5 * 2000 + 2 * 1000 + 3000

interface Options {
  readonly seed: number
  /** Which side visitors connect to. */
  readonly receiver: "server" | "client"
  readonly servers: "failover" | "all"
  /** Whether visitors are served by streams. Defaults to `true`. */
  readonly streams?: boolean
}

/** Three servers, a client that uses them, and a target. */
const world = <A, E>(
  { receiver, seed, servers, streams = true }: Options,
  program: (world: {
    readonly network: SimNetwork.SimNetwork
    readonly start: (name: (typeof names)[number]) => Effect.Effect<Scope.CloseableScope>
    /** Replaces the tunnel key on every side: on the client before or after the servers, so many milliseconds apart. */
    readonly rekey: (first: "client" | "servers", apartMillis: number) => Effect.Effect<void, TooManyKeys>
    /** Visits the target, through this server where visitors connect to servers. Returns the answer, `undefined` after a reset. */
    readonly ask: (by: string) => Effect.Effect<string | undefined>
    /** A visitor that is served and stays connected. */
    readonly stay: (by: string) => Effect.Effect<Transport.Connection, Transport.TransportError, Scope.Scope>
  }) => Effect.Effect<A, E, Scope.Scope>
) =>
  Simulated.run({ seed, link: { latency: 5 } }, ({ network }) =>
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const target = Effect.gen(function* () {
        const transport = yield* Transport.Transport
        const listener = yield* transport.listen(Address.make("target", 80))
        yield* Effect.forkScoped(
          Transport.serve(listener, (connection) =>
            Effect.gen(function* () {
              const question = yield* connection.read
              yield* connection.write(utf8("served"))
              // A visitor that sends "stay" stays until it leaves.
              if (Option.isSome(question) && question.value.length === 4) yield* readAll(connection)
              yield* connection.end
            }).pipe(Effect.ignore)
          )
        )
      })
      yield* Effect.provide(target, network.host("target"))
      let starts = 0
      let keys = 0
      const tunnels = new Map<string, Tunnel.Tunnel["Type"]>()
      const start = (name: (typeof names)[number]) =>
        Effect.gen(function* () {
          const own = yield* Scope.fork(scope, { _tag: "Sequential" })
          const at = receiver === "server" ? `${name}:8080?mode=1` : "target:80?mode=2"
          const text = `server://k${keys}@${name}:10101/${at}`
          const options = { transport: network.host(name), seed: seed * 100 + starts++, text, settings }
          tunnels.set(name, yield* Effect.orDie(Scope.extend(TunnelHost.start(options), own)))
          return own
        })
      const client = yield* TunnelHost.start({
        transport: network.host("client"),
        seed: seed * 100 + 99,
        text: `client://k0@${names.map((name) => `${name}:10101`).join()}/${receiver === "server" ? "target:80" : "client:8080"}?servers=${servers}&min=2&streams=${streams ? 1 : 0}`,
        settings
      })
      const visitor = yield* Effect.provide(Transport.Transport, network.host("visitor"))
      const connect = (by: string) => visitor.connect(Address.make(receiver === "server" ? by : "client", 8080))
      return yield* program({
        network,
        start,
        rekey: (first, apartMillis) =>
          Effect.gen(function* () {
            const key = Option.some(Redacted.make(`k${++keys}`))
            const here = client.replaceKey(key)
            const there = Effect.forEach(tunnels.values(), ({ replaceKey }) => replaceKey(key))
            yield* first === "client" ? here : there
            yield* Effect.sleep(apartMillis)
            yield* first === "client" ? there : here
          }),
        ask: (by) =>
          Effect.gen(function* () {
            const connection = yield* connect(by)
            yield* connection.write(utf8("ask"))
            yield* connection.end
            return yield* readText(connection)
          }).pipe(
            Effect.scoped,
            Effect.catchAll(() => Effect.succeed(undefined))
          ),
        stay: (by) =>
          Effect.gen(function* () {
            const connection = yield* connect(by)
            yield* connection.write(utf8("stay"))
            yield* connection.read
            return connection
          })
      })
    })
  )

const within = (millis: number) => (asking: Effect.Effect<string | undefined>) =>
  Effect.gen(function* () {
    const start = yield* Clock.currentTimeMillis
    while ((yield* asking) !== "served") {
      if ((yield* Clock.currentTimeMillis) - start > millis) assert.fail(`no visitor served within ${millis} ms`)
      yield* Effect.sleep(50)
    }
    return (yield* Clock.currentTimeMillis) - start
  })

/** A change of a server or of the keys. A server that is away returns, instead of crashing or being cut off again. */
const change = FastCheck.record({
  name: FastCheck.constantFrom(...names),
  kind: FastCheck.constantFrom("crash", "crash", "partition", "partition", "swallow", "swallow", "rekey", "rekey"),
  first: FastCheck.constantFrom("client" as const, "servers" as const),
  apartMillis: FastCheck.nat(3000),
  pauseMillis: FastCheck.nat(3000)
})

describe("a client of several servers", () => {
  it.each(["server", "client"] as const)("uses only the first, visitors connecting to the %s", (receiver) => {
    world({ seed: 1, receiver, servers: "failover" }, ({ ask, start }) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(name)
        yield* within(1000)(ask("first"))
        if (receiver === "client") return
        const asked = yield* Effect.timeoutOption(ask("second"), "20 seconds")
        assert.isTrue(Option.isNone(asked))
      })
    )
  })

  it.each(["crash", "partition"] as const)(
    "leaves one that is lost by a %s, and returns to it when it is back",
    (how) => {
      world({ seed: 2, receiver: "client", servers: "failover" }, ({ ask, network, start, stay }) =>
        Effect.gen(function* () {
          for (const name of names) yield* start(name)
          yield* within(1000)(ask("any"))
          const held = yield* stay("any")
          // Until its launch is acknowledged.
          yield* Effect.sleep("2 seconds")
          yield* how === "crash" ? network.crash("first") : network.partition("client", "first")
          const before = yield* Clock.currentTimeMillis
          // Visitors that come before the loss is detected wait; later ones notice nothing.
          yield* Effect.sleep(how === "crash" ? 100 : detection)
          for (let visit = 0; visit < 20; visit++) assert.strictEqual(yield* ask("any"), "served")
          assert.strictEqual((yield* Effect.flip(readAll(held))).reason, "Reset")
          const lost = (yield* Clock.currentTimeMillis) - before
          // Its stream waits for its server as long as the session does.
          assert.isBelow(lost, (how === "crash" ? 0 : detection) + 8000 + 5000)
          const second = yield* stay("any")

          yield* how === "crash" ? start("first") : network.heal("client", "first")
          yield* Effect.sleep("20 seconds")
          // Back on the first: a visitor of the second is not interrupted, and the second is not needed.
          yield* network.crash("third")
          yield* network.partition("client", "second")
          assert.strictEqual(yield* ask("any"), "served")
          yield* network.heal("client", "second")
          yield* second.write(utf8("more"))
          yield* second.end
          assert.strictEqual((yield* readAll(second)).length, 0)
        })
      )
    }
  )

  it("uses the next after a second, although the time of day is set back by an hour meanwhile", () => {
    const elapsed = Simulated.run({ seed: 1, layers: Settings.layer() }, () =>
      Effect.gen(function* () {
        const clock = yield* Effect.clock
        const tried = yield* Deferred.make<void>()
        let ahead = 0
        const skewed: Clock.Clock = {
          ...clock,
          unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + ahead,
          currentTimeMillis: Effect.sync(() => clock.unsafeCurrentTimeMillis() + ahead)
        }
        const first = (report: (status: Failover.ServerStatus) => void) =>
          Effect.gen(function* () {
            report("connected")
            yield* Effect.sleep("10 seconds")
            report("lost")
            ahead = -3_600_000
            return yield* Effect.never
          })
        const second = () => Effect.zipRight(Deferred.succeed(tried, undefined), Effect.never)
        const servers = [
          { name: "first", run: first },
          { name: "second", run: second }
        ]
        yield* Effect.forkScoped(Effect.withClock(Failover.run({ servers }), skewed))
        yield* Effect.timeout(Deferred.await(tried), "1 minute")
        return clock.unsafeCurrentTimeMillis()
      })
    )
    assert.isAtMost(elapsed, 11_001)
  })

  it("leaves one at once when its silence is detected", () => {
    world({ seed: 6, receiver: "client", servers: "failover" }, ({ ask, network, start }) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(name)
        yield* within(1000)(ask("any"))
        yield* network.partition("client", "first")
        // 2.5 report intervals, and the time between two sweeps.
        yield* Effect.sleep(2.5 * 2000 + 500)
        assert.isBelow(yield* within(1000)(ask("any")), 500)
        yield* network.heal("client", "first")
      })
    )
  })

  it("serves the visitors that wait for a pool connection to a lost one through the next", () => {
    world({ seed: 5, receiver: "client", servers: "failover", streams: false }, ({ ask, network, start }) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(name)
        yield* within(1000)(ask("any"))
        yield* network.partition("client", "first")
        const waiting = yield* Effect.replicateEffect(Effect.fork(ask("any")), 40)
        yield* Effect.sleep(detection)
        const answers = yield* Effect.forEach(waiting, (fiber) => fiber.poll)
        const served = answers.filter((answer) => Option.exists(answer, Exit.isSuccess)).length
        // The pool has two connections and a few that were being opened, whose launches were sent.
        assert.isAbove(served, 30)
      })
    )
  })

  it("with servers=all serves the visitors of each, and continues without one that is lost", () => {
    world({ seed: 3, receiver: "server", servers: "all" }, ({ ask, network, start }) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(name)
        for (const name of names) yield* within(1000)(ask(name))
        yield* network.crash("second")
        for (const name of ["first", "third"]) assert.strictEqual(yield* ask(name), "served")
        yield* start("second")
        yield* within(5000)(ask("second"))
      })
    )
  })

  it("with servers=all distributes its own visitors, and sends none to one that is known to be away", () => {
    world({ seed: 4, receiver: "client", servers: "all" }, ({ ask, network, start }) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(name)
        yield* within(1000)(ask("any"))
        yield* Effect.sleep("1 second")
        yield* network.partition("client", "second")
        yield* Effect.sleep(detection)
        for (let visit = 0; visit < 30; visit++) assert.strictEqual(yield* ask("any"), "served")
      })
    )
  })

  it.drawn(
    "serves new visitors after the detection time, whatever is lost, returns or gets another key",
    FastCheck.record({
      seed: FastCheck.noShrink(FastCheck.nat(1_000_000)),
      receiver: FastCheck.constantFrom("client" as const, "server" as const),
      servers: FastCheck.constantFrom("failover" as const, "all" as const),
      changes: FastCheck.array(change, { minLength: 1, maxLength: 6, size: "max" })
    }),
    runs(5, 100),
    ({ changes, receiver, seed, servers }) => {
      world({ seed, receiver, servers }, ({ ask, network, rekey, start }) =>
        Effect.gen(function* () {
          const away = new Set<string>()
          /** The answers to visitors: of the client, of each server, or of the server that the client uses. */
          const asked = Effect.suspend(() => {
            if (receiver === "client") return Effect.map(ask("any"), Arr.of)
            const answers = names.filter((name) => !away.has(name)).map(ask)
            if (servers === "all") return Effect.all(answers, { concurrency: "unbounded" })
            const served = answers.map(
              Effect.filterOrElse(
                (answer) => answer === "served",
                () => Effect.never
              )
            )
            return Effect.map(Effect.raceAll(served), Arr.of)
          })
          for (const name of names) yield* start(name)
          yield* within(1000)(Effect.map(asked, ([answer]) => answer))
          for (const [round, { apartMillis, first, kind, name, pauseMillis }] of changes.entries()) {
            if (kind === "rekey") yield* rekey(first, apartMillis)
            else if (away.delete(name)) yield* network.heal("client", name)
            else if (away.size < names.length - 1) {
              if (kind === "partition") {
                away.add(name)
                yield* network.partition("client", name)
              } else if (kind === "swallow") {
                // All that this server has, its control connection too, or its pool connections only.
                const pooled = { seen: apartMillis % 2 === 0 }
                yield* network.swallow("client", name, { where: () => pooled.seen || !(pooled.seen = true) })
              } else {
                yield* network.crash(name)
                yield* start(name)
              }
            }
            yield* Effect.sleep(pauseMillis)
            yield* Effect.fork(ask(name))
            yield* Effect.sleep(detection)
            const answers = yield* Effect.timeoutOption(asked, "3 seconds")
            const well = Option.exists(answers, (answers) => answers.every((answer) => answer === "served"))
            assert.isTrue(well, `round ${round}, away: ${Array.from(away).join()}`)
          }
          for (const name of away) yield* network.heal("client", name)
        })
      )
    }
  )
})
