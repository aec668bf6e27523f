import { assert, describe, it } from "@effect/vitest"

import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"

import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"

import { Crypto } from "../../src/transport/Crypto.js"
import * as Frame from "../../src/wire/Frame.js"
import * as TunnelPort from "../../src/tunnel/TunnelPort.js"
import * as Key from "../../src/wire/Key.js"
import * as TunnelKey from "../../src/wire/TunnelKey.js"
import * as Refusals from "../../src/core/Refusals.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as Transport from "../../src/transport/Transport.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { answer, clientConfig, readUntilEnd, serverConfig, tunnelPort, visitorsPort } from "./worlds/SmallWorld.js"
import * as EventBus from "../../src/core/EventBus.js"
import * as Deflate from "../../src/wire/Deflate.js"
import { runs } from "../Runs.js"
import { utf8 } from "../Bytes.js"

const link = { latency: Duration.millis(10) }
const world = <A, E>(program: (world: SmallWorld.World) => Effect.Effect<A, E, Scope.Scope>): A =>
  SmallWorld.run({ link }, program)
const seconds = (count: number) => Effect.sleep(Duration.seconds(count))
const [who, another] = ["0123456789abcdef", "fedcba9876543210"]
const timeout = Duration.toSeconds(Settings.defaults.handshakeTimeout)
const trip = 2 * Duration.toSeconds(link.latency)

/** Connects to the tunnel port, sends these bytes, and returns what it receives until the connection ends. */
const intrude = ({ connect }: SmallWorld.World, host: string, bytes: ReadonlyArray<Uint8Array>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(host, tunnelPort)
      yield* Effect.forkScoped(Effect.ignore(Effect.forEach(bytes, connection.write, { discard: true })))
      return yield* readUntilEnd(connection)
    })
  )

/** Relays a port to the tunnel port, and records what each connection sends to the server. */
const eavesdrop = ({ connect, network }: SmallWorld.World, port: Address.Address) =>
  Effect.gen(function* () {
    const recorded: Array<Array<Uint8Array>> = []
    const transport = yield* Effect.provide(Transport.Transport, network.host(port.host))
    const listener = yield* transport.listen(port)
    const copy = (
      from: Transport.Connection,
      to: Transport.Connection,
      written: Array<Uint8Array>
    ): Effect.Effect<void> =>
      Effect.matchEffect(from.read, {
        onFailure: () => to.reset,
        onSuccess: Option.match({
          onNone: () => Effect.ignore(to.end),
          onSome: (bytes) => {
            written.push(bytes)
            return Effect.matchEffect(to.write(bytes), {
              onFailure: () => from.reset,
              onSuccess: () => copy(from, to, written)
            })
          }
        })
      })
    yield* Effect.forkScoped(
      Transport.serve(listener, (near) =>
        Effect.gen(function* () {
          const far = yield* connect(port.host, tunnelPort)
          const written: Array<Uint8Array> = []
          recorded.push(written)
          yield* Effect.all([copy(near, far, written), copy(far, near, [])], { concurrency: 2 })
        }).pipe(Effect.scoped, Effect.ignore)
      )
    )
    return recorded
  })

describe("an unauthenticated peer on the tunnel port", () => {
  const fate = (bytes: ReadonlyArray<Uint8Array>) =>
    world((world) =>
      Effect.gen(function* () {
        const server = yield* world.start("server", serverConfig)
        const { seconds, text } = yield* intrude(world, "intruder", bytes)
        return { seconds, text, refused: (yield* server.checkpoint).refused["handshake"] }
      })
    )
  const hello = new Uint8Array(102)
  hello.set([0, 100, 2])

  it.each<readonly [string, ReadonlyArray<Uint8Array>]>([
    ["nothing", []],
    ["a line of zeros", [utf8(`${"\0".repeat(64)}\n`)]],
    ["a request of another protocol", [utf8("GET / HTTP/1.1\r\nHost: server\r\n\r\n")]],
    ["half a hello", [hello.subarray(0, 40)]],
    ["a hello by no key", [hello]],
    ["a hello of another version", [hello.with(2, 3)]],
    ["a hello of the previous version", [utf8(`//control?v=1&nonce=${"0".repeat(32)}&mac=${"0".repeat(32)}#hello\n`)]],
    ["a join of no session", [utf8(`//pool?session=${"0".repeat(16)}&n=0&mac=${"0".repeat(32)}#join\n`)]],
    ["64 MiB without the end of a line", Array.from({ length: 1024 }, () => new Uint8Array(65_536).fill(0x2f))]
  ])("that sends %s receives nothing, and is closed within the handshake timeout", (_, bytes) => {
    const { refused, seconds, text } = fate(bytes)
    assert.deepStrictEqual([text, refused], ["", 1])
    assert.isAtMost(seconds, timeout + trip)
  })

  it.prop(
    "that sends arbitrary bytes receives nothing, and is closed within the handshake timeout",
    [FastCheck.array(FastCheck.uint8Array({ minLength: 1, maxLength: 900 }), { maxLength: 4 })],
    ([bytes]) => {
      const { seconds, text } = fate(bytes)
      assert.strictEqual(text, "")
      assert.isAtMost(seconds, timeout + trip)
    },
    { fastCheck: { numRuns: runs(6, 60) } }
  )

  it("that sends one byte a second is closed within the handshake timeout", () => {
    const { seconds: stayed, text } = world((world) =>
      Effect.gen(function* () {
        yield* world.start("server", serverConfig)
        const connection = yield* world.connect("intruder", tunnelPort)
        const trickle = Effect.repeat(connection.write(utf8("/")), Schedule.spaced(Duration.seconds(1)))
        yield* Effect.forkScoped(Effect.ignore(trickle))
        return yield* readUntilEnd(connection)
      })
    )
    assert.strictEqual(text, "")
    assert.isAtMost(stayed, timeout + trip)
  })

  it("that replays what a client sent receives nothing, and disturbs nothing", () => {
    const ended = world((world) =>
      Effect.gen(function* () {
        const middle = Address.make("middle", 1)
        const recorded = yield* eavesdrop(world, middle)
        yield* world.start("server", { ...serverConfig, max: 3 })
        const client = yield* world.start("client", { ...clientConfig, min: 3, tunnel: middle })
        yield* client.ready
        yield* seconds(7)
        const before = (yield* client.checkpoint).pool.idle
        const sent = recorded.map((chunks) => chunks.slice())
        const hello = sent[0]?.slice(0, 1) ?? []
        const replays = [hello, hello, ...sent]
        const received = yield* Effect.forEach(replays, (bytes) => intrude(world, "intruder", bytes), {
          concurrency: "unbounded"
        })
        yield* seconds(3)
        const { pool, status } = yield* client.checkpoint
        return { received, before, idle: pool.idle, status, answer: yield* world.visit, log: world.log.slice() }
      })
    )
    assert.deepStrictEqual(new Set(ended.received.map(({ text }) => text)), new Set([""]))
    assert.isAbove(ended.received.length, 5)
    for (const { seconds } of ended.received) assert.isAtMost(seconds, timeout + trip)
    assert.deepStrictEqual([ended.before, ended.idle, ended.status, ended.answer], [3, 3, "serving", "hi"])
    assert.deepStrictEqual(
      ended.log.filter((line) => /lost|over/.test(line)),
      []
    )
  })

  it("that replays an earlier session receives nothing of the next one", () => {
    const received = world((world) =>
      Effect.gen(function* () {
        const middle = Address.make("middle", 1)
        const recorded = yield* eavesdrop(world, middle)
        yield* world.start("server", serverConfig)
        const start = world.start("client", { ...clientConfig, min: 3, tunnel: middle })
        yield* Effect.scoped(Effect.zipRight(start, seconds(2)))
        const joins = recorded.slice(1).map((chunks) => chunks.slice())
        yield* start
        yield* seconds(2)
        return yield* Effect.forEach(joins, (chunks) => intrude(world, "intruder", chunks))
      })
    )
    assert.isAtLeast(received.length, 3)
    for (const { text } of received) assert.strictEqual(text, "")
  })

  it("never receives a visitor, whatever it has learned from the wire", () => {
    const [early, received] = world((world) =>
      Effect.gen(function* () {
        yield* world.start("server", serverConfig)
        const control = yield* world.attach("client", who)
        const { keys } = control
        yield* Effect.forkScoped(answer(control))
        const crypto = yield* Effect.provide(Crypto, SimCrypto.layer(9))
        const others = Key.session(crypto, Redacted.make(utf8("another session")))
        const forged = [
          others.join(0).seal(`//pool?session=${keys.id}&n=0#join`),
          `//pool?session=${keys.id}&n=0&mac=${"0".repeat(32)}#join`,
          `//pool?session=${keys.id}&n=0#join`,
          others.join(0).seal(`//pool?session=${others.id}&n=0#join`)
        ].map((line) => utf8(`${line}\n`))
        const intruders = yield* Effect.forEach([...forged, ...forged, new Uint8Array(0)], (bytes) =>
          Effect.fork(intrude(world, "intruder", [bytes]))
        )
        const visitor = yield* world.connect("visitor", visitorsPort)
        yield* visitor.write(utf8("for the client alone"))
        const received = yield* Effect.forEach(intruders, Fiber.join)
        // It is served by the pool connection of the real client.
        const { connection } = yield* world.join("client", keys, 0)
        const early = yield* connection.read
        return [Option.map(early, Frame.toText), received] as const
      })
    )
    assert.deepStrictEqual(early, Option.some("for the client alone"))
    assert.deepStrictEqual(new Set(received.map(({ text }) => text)), new Set([""]))
  })
})

describe("many unauthenticated peers on the tunnel port", () => {
  it("a thousand silent ones, and more all the time, do not lock the client out", () => {
    const answer = world(({ connect, start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const intruder = Effect.forkScoped(
          Effect.scoped(Effect.flatMap(connect("intruders", tunnelPort), ({ read }) => Effect.ignore(read)))
        )
        yield* Effect.replicateEffect(intruder, 1000)
        const flood = yield* Effect.forkScoped(Effect.repeat(intruder, Schedule.spaced(Duration.millis(5))))
        yield* Effect.forkScoped(start("client", clientConfig))
        const answer = yield* visit
        flood.unsafeInterruptAsFork(flood.id())
        yield* seconds(15)
        return answer
      })
    )
    assert.strictEqual(answer, "hi")
  })

  it.prop(
    "that come from as many hosts keep no client out and delay no visitor, and few of them are held",
    [
      FastCheck.integer(),
      FastCheck.integer({ min: 500, max: 2000 }),
      FastCheck.constantFrom("GET /some/garbage HTTP/1.1\n", "GET /some/garbage HTTP/1.1", "")
    ],
    ([seed, perSecond, text]) => {
      const slow = { latency: Duration.millis(100) }
      const [connected, served, held, dropped] = SmallWorld.run({ seed, link: slow }, (world) =>
        Effect.gen(function* () {
          const server = yield* world.start("server", serverConfig)
          let number = 0
          const one = Effect.suspend(() => {
            number++
            return Effect.forkScoped(
              Effect.ignore(intrude(world, `127.1.${number >> 8}.${number & 255}`, text === "" ? [] : [utf8(text)]))
            )
          })
          const flood = yield* Effect.forkScoped(Effect.repeat(one, Schedule.spaced(Duration.millis(1000 / perSecond))))
          yield* seconds(0.3)
          const start = Effect.flatMap(world.start("client", clientConfig), ({ ready }) => ready)
          const [connected] = yield* Effect.timed(start)
          const served = yield* Effect.timed(world.visit)
          const held = world.network.open()
          yield* Fiber.interrupt(flood)
          yield* seconds(15)
          const { refused } = yield* server.checkpoint
          return [Duration.toSeconds(connected), served, held, [number, refused]] as const
        })
      )
      assert.isAtMost(connected, 3)
      // Connecting to the server, and the client to the target; the question, and its answer.
      assert.deepStrictEqual([Duration.toSeconds(served[0]) <= 1.2, served[1]], [true, "hi"])
      // Those that wait, and those that are in transit.
      assert.isAtMost(held, 512 + perSecond * 0.5 + 100)
      const [came, refused] = dropped
      // The client itself may be among them a few times.
      assert.approximately((refused["dropped"] ?? 0) + (refused["handshake"] ?? 0), came + 4, 4)
    },
    { fastCheck: { numRuns: runs(1, 20), endOnFailure: true } }
  )

  it.prop(
    "that send nothing or little do not delay the client and its visitors by a millisecond",
    [FastCheck.integer({ min: 1, max: 60 }), FastCheck.constantFrom("", "/", "\0", "\0d\x02")],
    ([count, text]) => {
      const times = [0, count].map((intruders) =>
        world((world) =>
          Effect.gen(function* () {
            yield* world.start("server", serverConfig)
            const one = Effect.forkScoped(intrude(world, "intruder", text === "" ? [] : [utf8(text)]))
            yield* Effect.replicateEffect(one, intruders)
            yield* seconds(1)
            const [ready] = yield* Effect.timed(
              Effect.flatMap(world.start("client", { ...clientConfig, min: 3 }), ({ ready }) => ready)
            )
            yield* seconds(1)
            const [served] = yield* Effect.timed(world.visit)
            return [Duration.toMillis(ready), Duration.toMillis(served)]
          })
        )
      )
      assert.deepStrictEqual(times[1], times[0])
    },
    { fastCheck: { numRuns: runs(5, 20) } }
  )

  it.prop(
    "are at most as many as the limit, and newcomers do not replace one that waits for a moment",
    [
      FastCheck.integer(),
      FastCheck.integer({ min: 2, max: 8 }),
      FastCheck.array(FastCheck.constantFrom("flood", "flood", "flood", "crowd", "crowd"), { maxLength: 40 })
    ],
    ([seed, limit, hosts]) => {
      const { alone, peak } = SmallWorld.run({ seed }, (world) =>
        Effect.gen(function* () {
          const port = yield* Effect.provide(TunnelPort.open(tunnelPort, { limit }), world.network.host("server"))
          const key = yield* Effect.provide(TunnelKey.make(Option.none()), SimCrypto.layer(seed))
          const unexpected = () => Effect.die("none of them knows the key")
          yield* Effect.forkScoped(
            TunnelPort.serve(port, {
              keys: Effect.succeed([key]),
              mayHaveNewerKey: () => undefined,
              onClient: unexpected,
              onJoin: unexpected
            })
          )
          let here = 0
          let peak = 0
          const arrive = (host: string) =>
            Effect.gen(function* () {
              const staying = yield* Effect.forkScoped(
                Effect.zipRight(
                  Effect.sync(() => here++),
                  Effect.ensuring(
                    intrude(world, host, []),
                    Effect.sync(() => here--)
                  )
                )
              )
              yield* Effect.sleep(Duration.millis(1))
              peak = Math.max(peak, here)
              return staying
            })
          const alone = yield* arrive("alone")
          yield* Effect.forEach(hosts, arrive, { discard: true })
          return { peak, alone: Option.isNone(yield* Fiber.poll(alone)) }
        }).pipe(
          Effect.provide([Deadlines.layer, Deflate.layerNone, Refusals.layer, Settings.layer(), SimCrypto.layer(seed)]),
          Effect.provide(EventBus.layerNoop)
        )
      )
      assert.isAtMost(peak, limit)
      assert.isTrue(alone)
    },
    { fastCheck: { numRuns: runs(6, 60) } }
  )
})

describe("a connection that ends during its handshake", () => {
  it("is a warning if its address is unknown, and none if a client of it has authenticated", () => {
    const ended = world(({ attach, connect, start, warnings }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        yield* attach("client", who)
        for (const host of ["client", "elsewhere"]) {
          const connection = yield* connect(host, tunnelPort)
          yield* connection.end
          yield* seconds(1)
        }
        return warnings.filter((line) => line.includes("closed the connection during the handshake"))
      })
    )
    assert.strictEqual(ended.length, 1)
    assert.match(ended[0] ?? "", /^elsewhere/)
  })
})

describe("a second client", () => {
  it("waits while the first is connected, does not disturb it, and gets the tunnel after it has left", () => {
    const ended = world(({ log, start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const scope = yield* Scope.make()
        const first = yield* Scope.extend(start("first", clientConfig), scope)
        yield* first.ready
        yield* seconds(3)
        const second = yield* start("second", clientConfig)
        const visits = Effect.replicateEffect(Effect.delay(visit, Duration.millis(100)), 80)
        const [took, answers] = yield* Effect.timed(visits)
        const during = [yield* first.status, yield* second.status, log.filter((line) => /lost|over/.test(line)).length]
        const { pool } = yield* first.checkpoint
        yield* Scope.close(scope, Exit.void)
        yield* second.ready
        const answer = yield* visit
        return { took: Duration.toSeconds(took), answers, during, idle: pool.idle, answer }
      })
    )
    assert.deepStrictEqual(ended.during, ["serving", "waiting", 0])
    assert.deepStrictEqual([new Set(ended.answers), ended.answer], [new Set(["hi"]), "hi"])
    assert.isAtLeast(ended.idle, 50)
    // 80 visits, each 100 ms after the one before and five or six round trips long: none was delayed.
    assert.isAtMost(ended.took, 80 * (0.1 + 6 * trip))
  })

  it("is declined as `Busy` while the first answers the ping that the server sends it each time", () => {
    const reasons = world(({ attach, start }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const running = yield* Effect.forkScoped(answer(yield* attach("first", who)))
        const failures = yield* Effect.replicateEffect(Effect.flip(attach("second", another)), 3)
        const undisturbed = Option.isNone(yield* Fiber.poll(running))
        return [...failures.map(({ reason }) => reason), undisturbed]
      })
    )
    assert.deepStrictEqual(reasons, ["Busy", "Busy", "Busy", true])
  })

  it("takes over when the first does not answer for a second", () => {
    const [took, first] = world(({ attach, start }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const stopped = yield* attach("first", who)
        yield* seconds(3)
        const [took] = yield* Effect.timed(attach("second", another))
        return [Duration.toSeconds(took), yield* readUntilEnd(stopped.connection)] as const
      })
    )
    assert.approximately(took, 1 + 3 * trip, trip)
    assert.isAtMost(first.seconds, trip)
  })

  it("takes over when the first can no longer be reached", () => {
    const [statuses, answer] = world(({ network, start, visit }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const first = yield* start("first", clientConfig)
        yield* first.ready
        yield* network.partition("server", "first")
        const second = yield* start("second", clientConfig)
        const [took] = yield* Effect.timed(second.ready)
        assert.isAtMost(Duration.toSeconds(took), 2)
        return [[yield* second.status], yield* visit] as const
      })
    )
    assert.deepStrictEqual([statuses, answer], [["serving"], "hi"])
  })

  it("that is the same process takes the place of its earlier session at once", () => {
    const [took, first, same] = world(({ attach, start }) =>
      Effect.gen(function* () {
        yield* start("server", serverConfig)
        const before = yield* attach("client", who)
        const running = yield* Effect.forkScoped(answer(before))
        yield* seconds(3)
        const [took, after] = yield* Effect.timed(attach("client", who))
        const [ended, reason] = yield* Effect.timed(Fiber.join(running))
        assert.isAtMost(Duration.toSeconds(ended), trip)
        return [Duration.toSeconds(took), reason, before.keys.id === after.keys.id] as const
      })
    )
    // Connecting, and the two steps of the handshake.
    assert.approximately(took, 3 * trip, 1e-6)
    assert.strictEqual(first, "Left")
    assert.isFalse(same)
  })

  it("receives nothing before it has proved the key, also when it would be declined", () => {
    const received = world((world) =>
      Effect.gen(function* () {
        yield* world.start("server", serverConfig)
        yield* world.attach("first", who)
        return yield* intrude(world, "second", [Uint8Array.of(0, 100, 2, ...new Uint8Array(99))])
      })
    )
    assert.strictEqual(received.text, "")
  })
})
