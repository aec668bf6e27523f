import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Simulation from "../../src/testing/Simulation.js"
import { type Connection, serve, Transport, type TransportError } from "../../src/transport/Transport.js"
import { overTls, tlsSuite, type CertificateSpec } from "../compliance/Tls.js"
import * as Datagrams from "../compliance/Datagrams.js"
import { readable, suite, type World } from "../compliance/Transport.js"
import { isLong, runs, seed } from "../Runs.js"
import * as Simulated from "../Simulated.js"
import { textOf, utf8 } from "../Bytes.js"

const segments = isLong ? [20, 320, 620, 920, 1220, 1520] : [20, 620, 1520]

/** Runs the program on one host, in a world for each of these segment sizes. */
const run = <E>(
  program: Effect.Effect<void, E, Scope.Scope | Transport>,
  over: Layer.Layer<Transport, never, Transport> = Layer.service(Transport)
): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const [at, segment] of segments.entries()) {
      const network = SimNetwork.make({ segment, window: 8 + at })
      Simulated.run({ seed: seed + at, turn: at % 2 === 0 ? 50 : 2048, network }, () =>
        program.pipe(Effect.provide(Layer.provide(over, network.host("local"))))
      )
    }
  })

const flood: World["flood"] = { chunks: 200, bytes: 500, limit: 17 * 2720 }

const certificate = ({ begins = -1e6, expires = 1e9, issuer, names }: CertificateSpec) => {
  const facts = { serial: "1", names, begins, expires }
  return Effect.succeed(SimCertificates.issue(issuer === "itself" ? facts : { ...facts, issuer }))
}
const secured = overTls(certificate({ issuer: "itself", names: ["nodepass"] }))

suite("SimNetwork", { run, flood })
suite("SimNetwork over TLS", { run: (program) => run(program, secured), flood })
tlsSuite("SimNetwork", { run, certificate, authority: Effect.succeed(SimCertificates.authority("known")) })
Datagrams.suite("SimNetwork datagrams", { run, flood: { chunks: 200, bytes: 500, limit: 17 * 2720 } })

type Program = (
  network: SimNetwork.SimNetwork,
  host: (name: string) => Effect.Effect<Transport["Type"], never, Scope.Scope>
) => Effect.Effect<void, TransportError, Scope.Scope>

/** Runs a program on hosts `a` and `b`, with several seeds, and checks that nothing is left open. */
const world = (link: SimNetwork.Link, program: Program): void => {
  for (let round = 0; round < runs(5, 20); round++) {
    const network = SimNetwork.make(link)
    const layers = new Map(["a", "b"].map((name) => [name, network.host(name)]))
    const host = (name: string) =>
      Effect.map(Layer.build(layers.get(name) ?? network.host(name)), Context.get(Transport))
    Simulated.run({ seed: seed + round, network, turn: 100 }, () => program(network, host))
  }
}

const b = Address.make("b", 80)
const reasonOf = <A, R>(effect: Effect.Effect<A, TransportError, R>) =>
  Effect.match(effect, { onFailure: (error) => error.reason, onSuccess: () => "Success" as const })

const readText = (connection: Connection): Effect.Effect<string, TransportError> =>
  Effect.map(connection.read, Option.match({ onNone: () => "(end)", onSome: (chunk) => textOf(chunk) }))
const readAll = (connection: Connection): Effect.Effect<string, TransportError> =>
  Effect.gen(function* () {
    let text = ""
    for (let more = yield* readText(connection); more !== "(end)"; more = yield* readText(connection)) text += more
    return text
  })

/** A connection from `a` to `b`. */
const connected = (host: Parameters<Program>[1], port = 80) =>
  Effect.gen(function* () {
    const [here, there] = yield* Effect.all([host("a"), host("b")])
    const listener = yield* there.listen(Address.make("", port))
    const client = yield* here.connect(Address.make("b", port))
    return { client, server: yield* listener.accept, listener, here, there }
  })

describe("SimNetwork", () => {
  it("a connect takes one round trip, and a segment the latency", () =>
    world({ latency: "10 millis" }, (_, host) =>
      Effect.gen(function* () {
        const { client, server } = yield* connected(host)
        assert.strictEqual(yield* Clock.currentTimeMillis, 20)
        yield* client.write(utf8("x"))
        assert.strictEqual(yield* Clock.currentTimeMillis, 20)
        assert.strictEqual(yield* readText(server), "x")
        assert.strictEqual(yield* Clock.currentTimeMillis, 30)
        assert.deepStrictEqual([server.remote.host, server.local.host, client.local.host], ["a", "b", "a"])
      })
    ))

  it.prop(
    "delivers bytes complete and in order, whatever the link",
    [
      FastCheck.integer(),
      FastCheck.string({ maxLength: 300 }),
      FastCheck.record({
        latency: FastCheck.double({ min: 0, max: 50, noNaN: true }),
        jitter: FastCheck.double({ min: 0, max: 50, noNaN: true }),
        window: FastCheck.integer({ min: 1, max: 4 }),
        segment: FastCheck.integer({ min: 1, max: 100 })
      })
    ],
    ([seed, text, link]) => {
      const network = SimNetwork.make(link)
      const bytes = utf8(text)
      const program = Effect.gen(function* () {
        const [here, there] = yield* Effect.all([
          Effect.provide(Transport, network.host("a")),
          Effect.provide(Transport, network.host("b"))
        ])
        const listener = yield* there.listen(b)
        const send = Effect.scoped(Effect.flatMap(here.connect(b), (client) => client.write(bytes)))
        const sending = yield* Effect.fork(send)
        const server = yield* listener.accept
        const parts: Array<Uint8Array> = []
        for (let chunk = yield* server.read; Option.isSome(chunk); chunk = yield* server.read) parts.push(chunk.value)
        yield* Fiber.join(sending)
        return Buffer.concat(parts).equals(bytes)
      })
      assert.isTrue(Simulated.run({ seed, network }, () => program))
    }
  )

  it.prop("gives the same history for the same seed, with jitter and resets", [FastCheck.integer()], ([seed]) => {
    const history = () => {
      const network = SimNetwork.make({ latency: 3, jitter: 5, window: 2, segment: 10, reset: 0.05 })
      const seen: Array<string> = []
      const program = Effect.gen(function* () {
        const here = yield* Effect.provide(Transport, network.host("a"))
        const there = yield* Effect.provide(Transport, network.host("b"))
        const listener = yield* there.listen(b)
        yield* Effect.forkScoped(
          serve(listener, (connection) =>
            Effect.ignore(Effect.flatMap(readAll(connection), (text) => connection.write(utf8(text))))
          )
        )
        for (let visit = 0; visit < 5; visit++) {
          const ask = Effect.gen(function* () {
            const client = yield* here.connect(b)
            yield* client.write(utf8("a question of some length"))
            yield* client.end
            return yield* readAll(client)
          })
          seen.push(yield* Effect.scoped(ask).pipe(Effect.catchAll((error) => Effect.succeed(error.message))))
        }
      })
      const { elapsed, steps } = Simulation.run(Effect.scoped(program), { seed })
      return [seen, elapsed, steps, network.open()]
    }
    assert.deepStrictEqual(history(), history())
  })

  it("a partition holds bytes, ends and new connections, and heals without loss", () =>
    world({ latency: 10, jitter: 5 }, (network, host) =>
      Effect.gen(function* () {
        const { client, here, server } = yield* connected(host)
        yield* client.write(utf8("in flight "))
        yield* network.partition("b", "a")
        yield* client.write(utf8("held"))
        yield* client.end
        const reading = yield* Effect.fork(readAll(server))
        const connecting = yield* Effect.fork(here.connect(b))
        yield* Effect.sleep("1 hour")
        assert.isTrue(Option.isNone(yield* Fiber.poll(reading)))
        assert.isTrue(Option.isNone(yield* Fiber.poll(connecting)))
        yield* network.heal("a", "b")
        assert.strictEqual(yield* Fiber.join(reading), "in flight held")
        yield* Fiber.join(connecting)
        assert.isAtLeast(yield* Clock.currentTimeMillis, 3_600_000)
        yield* server.write(utf8("well"))
        assert.strictEqual(yield* readText(client), "well")
      })
    ))

  it("a partition holds a reset too", () =>
    world({ latency: 10 }, (network, host) =>
      Effect.gen(function* () {
        const { client, server } = yield* connected(host)
        yield* network.partition("a", "b")
        yield* client.reset
        const reading = yield* Effect.fork(reasonOf(server.read))
        yield* Effect.sleep("1 hour")
        assert.isTrue(Option.isNone(yield* Fiber.poll(reading)))
        yield* network.heal("a", "b")
        assert.strictEqual(yield* Fiber.join(reading), "Reset")
      })
    ))

  it("cut resets the chosen connections and no others, on both sides", () =>
    world({ latency: 10 }, (network, host) =>
      Effect.gen(function* () {
        const first = yield* connected(host, 80)
        const second = yield* Effect.all(
          {
            client: first.here.connect(b),
            server: first.listener.accept
          },
          { concurrency: 2 }
        )
        const other = yield* connected(host, 81)
        assert.strictEqual(yield* network.cut("b", "a", { where: ({ server }) => server.port === 80, limit: 1 }), 1)
        assert.strictEqual(yield* reasonOf(first.client.read), "Reset")
        assert.strictEqual(yield* reasonOf(first.server.write(utf8("x"))), "Reset")
        for (const { client, server } of [second, other]) {
          yield* client.write(utf8("fine"))
          assert.strictEqual(yield* readText(server), "fine")
        }
        assert.strictEqual(yield* network.cut("a", "b"), 2)
        assert.strictEqual(yield* network.cut("a", "b"), 0)
        assert.strictEqual(yield* reasonOf(other.server.read), "Reset")
      })
    ))

  it("swallow loses what the chosen connections carry, both ways, without an end; a watch notices it in 9 seconds", () =>
    world({ latency: 10 }, (network, host) =>
      Effect.gen(function* () {
        const { client, here, listener, server } = yield* connected(host)
        const other = yield* Effect.all({ client: here.connect(b), server: listener.accept }, { concurrency: 2 })
        yield* client.write(utf8("in transit"))
        assert.strictEqual(yield* network.swallow("a", "b", { limit: 1 }), 1)
        yield* client.write(utf8("lost"))
        yield* server.end
        const reading = yield* Effect.fork(
          Effect.all([reasonOf(server.read), reasonOf(client.read)], { concurrency: 2 })
        )
        yield* network.partition("a", "b")
        yield* Effect.sleep("1 hour")
        yield* network.heal("a", "b")
        yield* Effect.sleep("1 hour")
        assert.isTrue(Option.isNone(yield* Fiber.poll(reading)))
        yield* Fiber.interrupt(reading)
        const [noticed, found] = yield* Effect.timed(readable(client))
        assert.deepStrictEqual([Duration.toSeconds(noticed), found], [9, "Failure"])
        assert.strictEqual(yield* reasonOf(client.read), "TimedOut")
        yield* client.reset
        yield* Effect.sleep("1 hour")
        assert.strictEqual(
          yield* Effect.map(Effect.timeout(Effect.flip(server.read), "1 hour"), String).pipe(
            Effect.catchAll(({ _tag }) => Effect.succeed(_tag))
          ),
          "TimeoutException"
        )
        yield* other.client.write(utf8("fine"))
        assert.strictEqual(yield* readText(other.server), "fine")
      })
    ))

  it("a crash closes ports and resets connections; the crashed host has no effect any more, and a restarted one is empty", () =>
    world({ latency: 10 }, (network, host) =>
      Effect.gen(function* () {
        const { client, here, listener, server, there } = yield* connected(host)
        yield* here.connect(b)
        const accepting = yield* Effect.fork(listener.accept)
        yield* Fiber.join(accepting)
        const waiting = yield* Effect.fork(reasonOf(server.read))
        const reading = yield* Effect.fork(reasonOf(client.read))
        yield* here.connect(b)
        yield* Effect.sleep(1)
        yield* network.crash("b")
        assert.strictEqual(yield* Fiber.join(reading), "Reset")
        assert.strictEqual(yield* Fiber.join(waiting), "Closed")
        assert.strictEqual(yield* reasonOf(server.write(utf8("x"))), "Closed")
        assert.strictEqual(yield* reasonOf(server.end), "Closed")
        assert.strictEqual(yield* reasonOf(here.connect(b)), "Refused")
        assert.strictEqual(yield* reasonOf(there.connect(Address.make("a", 1))), "Unreachable")
        assert.strictEqual(yield* reasonOf(there.listen(b)), "AddressUnavailable")

        const again = yield* Effect.provide(Transport, network.host("b"))
        const fresh = yield* again.listen(b)
        const visitor = yield* here.connect(b)
        yield* visitor.write(utf8("hello"))
        assert.strictEqual(yield* readText(yield* fresh.accept), "hello")
      })
    ))

  it("delivers what was written before the scope closed, followed by an end", () =>
    world({ latency: 10, window: 4 }, (_, host) =>
      Effect.gen(function* () {
        const { here, listener } = yield* connected(host)
        yield* Effect.scoped(Effect.flatMap(here.connect(b), (client) => client.write(utf8("last words"))))
        const server = yield* listener.accept
        assert.strictEqual(yield* readAll(server), "last words")
      })
    ))

  it("closing with unread bytes resets the peer, and a reset overtakes unread bytes", () =>
    world({ latency: 10 }, (_, host) =>
      Effect.gen(function* () {
        const { here, listener } = yield* connected(host)
        const scope = yield* Scope.make()
        const client = yield* Scope.extend(here.connect(b), scope)
        const server = yield* listener.accept
        yield* server.write(utf8("never read"))
        yield* client.write(utf8("lost"))
        assert.strictEqual(yield* readable(client), "Bytes")
        yield* Scope.close(scope, Exit.void)
        yield* Effect.sleep(10)
        assert.strictEqual(yield* reasonOf(server.read), "Reset")
      })
    ))

  it("a connect that is interrupted after the other side accepted it is a reset there", () =>
    world({ latency: 10 }, (_, host) =>
      Effect.gen(function* () {
        const { here, listener } = yield* connected(host)
        const scope = yield* Effect.scope
        const connecting = yield* Effect.fork(Scope.extend(here.connect(b), scope))
        const server = yield* listener.accept
        yield* Fiber.interrupt(connecting)
        assert.strictEqual(yield* reasonOf(server.read), "Reset")
      })
    ))

  it("a write to a peer that has closed fails only after a round trip", () =>
    world({ latency: 10 }, (_, host) =>
      Effect.gen(function* () {
        const { here, listener } = yield* connected(host)
        yield* Effect.scoped(here.connect(b))
        const server = yield* listener.accept
        const start = yield* Clock.currentTimeMillis
        yield* server.write(utf8("x"))
        yield* server.write(utf8("y"))
        assert.strictEqual(yield* reasonOf(Effect.forever(server.write(utf8("z")))), "Reset")
        assert.strictEqual((yield* Clock.currentTimeMillis) - start, 20)
      })
    ))

  it("only the host itself reaches a listener on its loopback, by loopback and by name", () =>
    world({ latency: 10 }, (_, host) =>
      Effect.gen(function* () {
        const [here, there] = yield* Effect.all([host("a"), host("b")])
        const listener = yield* there.listen(Address.make("127.0.0.1", 80))
        assert.strictEqual(yield* reasonOf(here.connect(b)), "Refused")
        for (const name of ["localhost", "b", ""]) {
          yield* there.connect(Address.make(name, 80))
          assert.strictEqual((yield* listener.accept).remote.host, "127.0.0.1")
        }
      })
    ))

  it("keeps the ports of hosts apart, and knows only the names of hosts", () =>
    world({}, (_, host) =>
      Effect.gen(function* () {
        const [here, there] = yield* Effect.all([host("a"), host("b")])
        yield* here.listen(Address.make("a", 80))
        yield* there.listen(b)
        assert.strictEqual(yield* reasonOf(there.listen(Address.make("", 80))), "AddressInUse")
        assert.strictEqual(yield* reasonOf(there.listen(Address.make("a", 81))), "AddressUnavailable")
        assert.strictEqual(yield* reasonOf(here.connect(Address.make("b", 81))), "Refused")
        assert.strictEqual(yield* reasonOf(here.connect(Address.make("c", 80))), "UnknownHost")
      })
    ))

  it("random resets are errors, never silence or missing bytes before an end", () =>
    world({ latency: 2, reset: 0.2, segment: 10, window: 3 }, (_, host) =>
      Effect.gen(function* () {
        const { here, listener } = yield* connected(host)
        const text = "0123456789".repeat(5)
        for (let visit = 0; visit < 10; visit++) {
          const client = yield* here.connect(b)
          const server = yield* listener.accept
          const sending = yield* Effect.fork(reasonOf(Effect.zipRight(client.write(utf8(text)), client.end)))
          const received = yield* Effect.either(readAll(server))
          if (received._tag === "Right") assert.strictEqual(received.right, text)
          else assert.strictEqual(received.left.reason, "Reset")
          yield* Fiber.join(sending)
        }
      })
    ))
})
