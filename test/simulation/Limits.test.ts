import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Slots from "../../src/relay/Slots.js"
import * as Transport from "../../src/transport/Transport.js"
import * as LimitWorld from "./worlds/LimitWorld.js"
import { runs } from "../Runs.js"
import { utf8 } from "../Bytes.js"

const { sides, visitorsAt } = LimitWorld
const protocol = FastCheck.constantFrom("tcp" as const, "udp" as const)
const pings = (visitor: LimitWorld.Visitor) => Effect.forever(Effect.delay(visitor.ping, "500 millis"))

describe("slot", () => {
  it.prop(
    "counts TCP and UDP together, and frees the slot of a visitor that leaves",
    [FastCheck.constantFrom(...sides), FastCheck.integer({ min: 1, max: 5 }), FastCheck.nat(), FastCheck.nat()],
    ([side, slots, udp, leaver]) => {
      const udps = udp % (Slots.shares(slots).udp + 1)
      LimitWorld.run({ side, query: `slot=${slots}&read=2s` }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          yield* LimitWorld.echoTcp(network)
          yield* LimitWorld.echoUdp(network)
          const leaving = yield* Scope.make()
          for (let at = 0; at < slots; at++) {
            const scope = at === leaver % slots ? leaving : yield* Effect.scope
            const visitor = yield* Scope.extend(LimitWorld.visitor(at < udps ? "udp" : "tcp"), scope)
            assert.isTrue(yield* visitor.ping)
            yield* Effect.forkIn(pings(visitor), scope)
          }
          // UDP visitors have sent again after an answer, and so keep their slots.
          yield* Effect.sleep("1 second")
          assert.isFalse(yield* Effect.scoped(Effect.flatMap(LimitWorld.visitor("tcp"), ({ ping }) => ping)))
          const checkpoint = yield* tunnel.checkpoint
          assert.deepStrictEqual([checkpoint.tcps, checkpoint.udps], [slots - udps, udps])
          yield* Scope.close(leaving, Exit.void)
          // A UDP visitor has left when it was silent for `read`.
          yield* Effect.sleep("6 seconds")
          assert.isTrue(yield* (yield* LimitWorld.visitor("tcp")).ping)
          assert.isFalse(yield* (yield* LimitWorld.visitor("tcp")).ping)
          const { refused } = yield* tunnel.checkpoint
          assert.deepStrictEqual([refused["slot"], refused["evicted"]], [2, 0])
        })
      )
    },
    { fastCheck: { numRuns: runs(3, 16) } }
  )

  it.each(sides)("ends the UDP session that was silent longest when UDP has two thirds: %s", (side) => {
    LimitWorld.run({ side, query: "slot=6" }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        yield* LimitWorld.echoUdp(network)
        const first = yield* LimitWorld.visitor("udp")
        assert.isTrue(yield* first.ping)
        for (let question = 0; question < 20; question++) {
          assert.isTrue(yield* (yield* LimitWorld.visitor("udp")).ping)
          assert.isTrue(yield* first.ping)
        }
        for (const tcp of [1, 2]) assert.isTrue(yield* (yield* LimitWorld.visitor("tcp")).ping, String(tcp))
        const { refused, tcps, udps } = yield* tunnel.checkpoint
        assert.deepStrictEqual([tcps, udps, refused["slot"], refused["evicted"]], [2, 4, 0, 17])
      })
    )
  })

  it.each(sides)("ends UDP sessions that are not two-way for TCP visitors: %s", (side) => {
    LimitWorld.run({ side, query: "slot=6" }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        yield* LimitWorld.echoUdp(network)
        const twoWay = yield* LimitWorld.visitor("udp")
        for (const time of [1, 2]) assert.isTrue(yield* twoWay.ping, String(time))
        yield* Effect.replicateEffect(
          Effect.flatMap(LimitWorld.visitor("udp"), ({ ping }) => ping),
          3
        )
        for (let visitor = 0; visitor < 5; visitor++) assert.isTrue(yield* (yield* LimitWorld.visitor("tcp")).ping)
        assert.isFalse(yield* (yield* LimitWorld.visitor("tcp")).ping)
        assert.isTrue(yield* twoWay.ping)
        const { refused, tcps, udps } = yield* tunnel.checkpoint
        assert.deepStrictEqual([tcps, udps, refused["slot"], refused["evicted"]], [5, 1, 1, 3])
      })
    )
  })
})

describe("read", () => {
  /** How long the visitor is served after its last byte, in milliseconds. */
  const servedFor = (
    query: string,
    side: LimitWorld.Side,
    protocol: "tcp" | "udp",
    longest: Duration.DurationInput,
    pings = 2
  ) =>
    LimitWorld.run({ side, query }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        yield* LimitWorld.echoUdp(network)
        const visitor = yield* LimitWorld.visitor(protocol)
        // A UDP visitor that sends once is served for 30 s at most.
        for (let time = 0; time < pings; time++) assert.isTrue(yield* visitor.ping)
        const from = yield* Clock.currentTimeMillis
        const end = from + Duration.toMillis(longest)
        while ((yield* Clock.currentTimeMillis) < end) {
          const { tcps, udps } = yield* tunnel.checkpoint
          if (tcps + udps === 0) break
          yield* Effect.sleep(Duration.times(longest, 0.01))
        }
        return (yield* Clock.currentTimeMillis) - from
      })
    )

  it.prop(
    "ends a visit that was silent in both directions for that long, and not before",
    [FastCheck.constantFrom(...sides), protocol, FastCheck.integer({ min: 400, max: 20_000 })],
    ([side, protocol, limit]) => {
      const stayed = servedFor(`read=${limit}ms`, side, protocol, limit + 6000)
      // The last byte passed a few milliseconds earlier; the side that dials leaves it to the other one to end a UDP session.
      assert.isAtLeast(stayed, limit - 20)
      assert.isAtMost(stayed, limit + 2500 + (side === "dialler" && protocol === "udp" ? 2000 : 0))
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it.each(sides)("0 never ends a visit: %s", (side) => {
    for (const protocol of ["tcp", "udp"] as const) {
      assert.isAtLeast(servedFor("read=0", side, protocol, "11 minutes"), Duration.toMillis("11 minutes"))
    }
  })

  it.each(sides)(
    "never ends a TCP visit when it is not set, and a two-way UDP session after 10 minutes: %s",
    (side) => {
      assert.isAtLeast(servedFor("", side, "tcp", "11 minutes"), Duration.toMillis("11 minutes"))
      const stayed = servedFor("", side, "udp", "11 minutes")
      assert.isAtLeast(stayed, 599_900)
      assert.isAtMost(stayed, 620_000)
    }
  )

  it.each(sides)("a UDP visitor that sent once has left after 30 s, answered or not: %s", (side) => {
    const stayed = servedFor("read=0", side, "udp", "1 minute", 1)
    assert.isAtLeast(stayed, 29_900)
    assert.isAtMost(stayed, 32_500 + (side === "dialler" ? 2000 : 0))
  })

  it.prop(
    "traffic in one direction is enough to keep a visit",
    [FastCheck.constantFrom(...sides), protocol, FastCheck.constantFrom("visitor" as const, "target" as const)],
    ([side, protocol, sender]) => {
      LimitWorld.run({ side, query: "read=3s" }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          const byte = new Uint8Array(1)
          const transport = yield* Transport.Transport
          const slowly = <E>(send: Effect.Effect<unknown, E>) => Effect.forever(Effect.delay(send, "1500 millis"))
          yield* LimitWorld.serveTcp(network, (connection) =>
            sender === "target" ? slowly(connection.write(byte)) : Effect.forever(connection.read)
          )
          yield* LimitWorld.serveUdp(network, (datagram, socket) =>
            Effect.zipRight(
              socket.send([datagram]),
              sender === "target" ? Effect.forkScoped(slowly(socket.send([datagram]))) : Effect.void
            )
          )
          if (protocol === "tcp") {
            const connection = yield* transport.connect(visitorsAt)
            yield* Effect.forkScoped(
              sender === "visitor" ? slowly(connection.write(byte)) : Effect.forever(connection.read)
            )
          } else {
            const socket = yield* transport.associate(visitorsAt)
            const send = socket.send([{ peer: visitorsAt, bytes: byte }])
            yield* send
            if (sender === "visitor") yield* Effect.forkScoped(slowly(send))
          }
          yield* Effect.sleep("31 seconds")
          const { tcps, udps, visitors } = yield* tunnel.checkpoint
          assert.deepStrictEqual([tcps + udps, visitors], [1, 1])
        })
      )
    },
    { fastCheck: { numRuns: runs(3, 12) } }
  )
})

describe("rate", () => {
  it.prop(
    "limits all TCP and UDP visitors together, each way, within a tenth in any two seconds",
    [FastCheck.constantFrom(...sides), FastCheck.integer({ min: 2, max: 8 }), FastCheck.nat(2), FastCheck.nat(2)],
    ([side, megabits, tcp, udp]) => {
      LimitWorld.run({ side, query: `rate=${megabits}&read=0` }, ({ network }) =>
        Effect.gen(function* () {
          const transport = yield* Transport.Transport
          const passed = { up: 0, down: 0 }
          const chunk = new Uint8Array(4000)
          const receive = (connection: Transport.Connection, direction: "up" | "down") =>
            Effect.forever(
              Effect.map(
                connection.read,
                (bytes) =>
                  (passed[direction] += Option.match(bytes, { onNone: () => 0, onSome: ({ length }) => length }))
              )
            )
          // One visitor alone sends a little more than the rate.
          const pace = Effect.sleep(Duration.millis(20 / megabits))
          const datagram = new Uint8Array(1200 * 2)
          yield* LimitWorld.serveTcp(network, (connection) =>
            Effect.zipRight(Effect.forkScoped(Effect.forever(connection.write(chunk))), receive(connection, "up"))
          )
          const known = new Set<string>()
          yield* LimitWorld.serveUdp(network, ({ bytes, peer }, socket) =>
            Effect.suspend(() => {
              passed.up += bytes.length
              if (known.has(String(peer))) return Effect.void
              known.add(String(peer))
              return Effect.forkScoped(Effect.forever(Effect.zipRight(socket.send([{ peer, bytes: datagram }]), pace)))
            })
          )
          for (let count = 0; count <= tcp; count++) {
            const connection = yield* transport.connect(visitorsAt)
            yield* Effect.forkScoped(Effect.forever(connection.write(chunk)))
            yield* Effect.forkScoped(receive(connection, "down"))
          }
          for (let count = 0; count <= udp; count++) {
            const socket = yield* transport.associate(visitorsAt)
            yield* Effect.forkScoped(
              Effect.forever(Effect.zipRight(socket.send([{ peer: visitorsAt, bytes: datagram }]), pace))
            )
            yield* Effect.forkScoped(
              Effect.forever(
                Effect.map(socket.receive, (datagrams) => {
                  for (const { bytes } of datagrams) passed.down += bytes.length
                })
              )
            )
          }
          yield* Effect.sleep("1 second")
          for (let window = 0; window < 2; window++) {
            const before = { ...passed }
            yield* Effect.sleep("2 seconds")
            for (const direction of ["up", "down"] as const) {
              const bytes = passed[direction] - before[direction]
              assert.approximately(bytes / (2 * megabits * 125_000), 1, 0.1, direction)
            }
          }
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 3) } }
  )
})

describe("a UDP session", () => {
  it.each(sides)("without an answer ends after 30 s, whatever `read` is: %s", (side) => {
    for (const query of ["read=0", "read=10m"]) {
      LimitWorld.run({ side, query }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          yield* LimitWorld.serveUdp(network, () => Effect.void)
          const socket = yield* (yield* Transport.Transport).associate(visitorsAt)
          yield* socket.send([{ peer: visitorsAt, bytes: new Uint8Array(1) }])
          yield* Effect.sleep("29 seconds")
          assert.strictEqual((yield* tunnel.checkpoint).udps, 1)
          yield* Effect.sleep("3 seconds")
          assert.strictEqual((yield* tunnel.checkpoint).udps, 0)
        })
      )
    }
  })

  it("keeps one pool connection and one port to the target until it ends; the next session has others", () => {
    LimitWorld.run({ side: "receiver", query: "read=5s" }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        const ports = new Set<string>()
        yield* LimitWorld.serveUdp(network, (datagram, socket) => {
          ports.add(String(datagram.peer))
          return socket.send([datagram])
        })
        const visitor = yield* LimitWorld.visitor("udp")
        assert.isTrue(yield* visitor.ping)
        yield* Effect.sleep("2 seconds")
        const open = network.open()
        for (let count = 0; count < 20; count++) {
          assert.isTrue(yield* visitor.ping)
          yield* Effect.sleep("1 second")
        }
        assert.deepStrictEqual([ports.size, network.open(), (yield* tunnel.checkpoint).visitors], [1, open, 1])
        yield* Effect.sleep("8 seconds")
        assert.strictEqual((yield* tunnel.checkpoint).udps, 0)
        assert.isTrue(yield* visitor.ping)
        assert.deepStrictEqual([ports.size, (yield* tunnel.checkpoint).visitors], [2, 2])
      })
    )
  })

  it.prop(
    "drops and counts a datagram larger than NP_UDP_DATA_BUF_SIZE, on either side and in either direction",
    [
      FastCheck.constantFrom(...sides),
      FastCheck.integer({ min: 2, max: 3000 }),
      FastCheck.constantFrom("target" as const, "visitor" as const)
    ],
    ([side, limit, to]) => {
      LimitWorld.run({ side, settings: { datagramLimit: limit } }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          const sizes = [limit, limit + 1, 0, 2 * limit, limit - 1]
          const [received, answers]: [Array<number>, Array<number>] = [[], []]
          yield* LimitWorld.serveUdp(network, ({ bytes, peer }, socket) => {
            received.push(bytes.length)
            const size = to === "target" ? 0 : (sizes[received.length - 1] ?? 0)
            return socket.send([{ peer, bytes: new Uint8Array(size) }])
          })
          const socket = yield* (yield* Transport.Transport).associate(visitorsAt)
          yield* Effect.forkScoped(
            Effect.forever(
              Effect.map(socket.receive, (datagrams) => answers.push(...datagrams.map(({ bytes }) => bytes.length)))
            )
          )
          for (const size of sizes) {
            yield* socket.send([{ peer: visitorsAt, bytes: new Uint8Array(to === "target" ? size : 1) }])
            yield* Effect.sleep("100 millis")
          }
          assert.deepStrictEqual(to === "target" ? received : answers, [limit, 0, limit - 1])
          assert.strictEqual((yield* tunnel.checkpoint).refused["datagram"], 2)
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it("drops and counts the newest datagrams while its queue is full", () => {
    const link = { window: 2, segment: 65_536 }
    LimitWorld.run({ side: "receiver", link }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        const received: Array<number> = []
        yield* LimitWorld.serveUdp(network, ({ bytes, peer }, socket) => {
          received.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0))
          return socket.send([{ peer, bytes: new Uint8Array(1) }])
        })
        const socket = yield* (yield* Transport.Transport).associate(visitorsAt)
        let sent = 0
        const send = Effect.suspend(() => {
          const bytes = new Uint8Array(10_000)
          new DataView(bytes.buffer).setUint32(0, sent++)
          return Effect.zipRight(socket.send([{ peer: visitorsAt, bytes }]), Effect.sleep("1 millis"))
        })
        yield* Effect.replicateEffect(send, 10)
        yield* Effect.sleep("100 millis")
        yield* network.partition("receiver", "dialler")
        yield* Effect.replicateEffect(send, 600)
        yield* network.heal("receiver", "dialler")
        yield* Effect.sleep("1 second")
        const { refused } = yield* tunnel.checkpoint
        assert.isAbove(refused["datagram"] ?? 0, 0)
        assert.strictEqual(received.length + (refused["datagram"] ?? 0), sent)
        assert.deepStrictEqual(
          received,
          Array.from({ length: received.length }, (_, at) => at)
        )
        // The network's window, the write that waits, and the session's queue of 1 MiB.
        const held = received.length - 10
        assert.isAtMost(held * 10_000, 2 * 65_536 + 2 * 1024 * 1024)
        assert.isAtLeast(held * 10_000, 1024 * 1024 - 10_000)
        yield* send
        yield* Effect.sleep("100 millis")
        assert.strictEqual(received.at(-1), sent - 1)
      })
    )
  })
})

describe("a TCP reader that stops", () => {
  it.prop(
    "leaves one chunk in each process, besides the windows of the sockets, in either direction",
    [
      FastCheck.constantFrom("alone" as const, "receiver" as const),
      FastCheck.integer({ min: 1, max: 16 }),
      FastCheck.integer({ min: 1, max: 65_536 }),
      FastCheck.boolean()
    ],
    ([side, window, size, back]) => {
      LimitWorld.run({ side, query: "streams=0", link: { window, segment: 65_536 } }, ({ network }) =>
        Effect.gen(function* () {
          let written = 0
          const flood = (connection: Transport.Connection) =>
            Effect.forever(Effect.map(connection.write(new Uint8Array(size)), () => written++))
          yield* LimitWorld.serveTcp(network, (connection) => (back ? flood(connection) : Effect.never))
          const connection = yield* (yield* Transport.Transport).connect(visitorsAt)
          if (!back) yield* Effect.forkScoped(flood(connection))
          yield* Effect.sleep("5 seconds")
          const [connections, processes] = side === "alone" ? [2, 1] : [3, 2]
          assert.strictEqual(written, connections * window + processes)
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )
})

describe("proxy-in", () => {
  /** A header of version 2 with TLVs, as long as it can be. */
  const header = new Uint8Array(16 + 65_535)
  header.set([
    13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0x11, 255, 255, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 80
  ])

  it.each([65_551, 5000, 11])("accepts a header of 64 KiB in pieces of %i bytes", (piece) => {
    LimitWorld.run({ side: "receiver", query: "proxy-in=1" }, ({ network }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        const connection = yield* (yield* Transport.Transport).connect(visitorsAt)
        const bytes = Uint8Array.from([...header, 7])
        for (let at = 0; at < bytes.length; at += piece) yield* connection.write(bytes.subarray(at, at + piece))
        assert.deepStrictEqual(yield* connection.read, Option.some(Uint8Array.of(7)))
      })
    )
  })

  it("refuses headers beyond 16 MiB that are unfinished, and serves others when these are gone", () => {
    LimitWorld.run({ side: "receiver", query: "proxy-in=1" }, ({ network, tunnel }) =>
      Effect.gen(function* () {
        yield* LimitWorld.echoTcp(network)
        const transport = yield* Transport.Transport
        const send = Effect.gen(function* () {
          const connection = yield* transport.connect(visitorsAt)
          yield* connection.write(header.subarray(0, -1))
        })
        yield* Effect.replicateEffect(send, 300)
        yield* Effect.sleep("2 seconds")
        assert.strictEqual((yield* tunnel.checkpoint).refused["header"], 300 - 255)
        // The timeout of a handshake.
        yield* Effect.sleep("10 seconds")
        assert.strictEqual((yield* tunnel.checkpoint).refused["header"], 300)
        const connection = yield* transport.connect(visitorsAt)
        yield* connection.write(Uint8Array.from([...header, 7]))
        assert.deepStrictEqual(yield* connection.read, Option.some(Uint8Array.of(7)))
      })
    )
  })
})

describe("a timeout", () => {
  const within = (limit: number, more: number, took: number) => {
    assert.isAtLeast(took, limit)
    assert.isAtMost(took, limit + more)
  }
  const limit = FastCheck.integer({ min: 1, max: 8000 })

  /** How long a TCP visitor that sends these bytes waits until it is reset, in milliseconds. */
  const waits = (bytes: Uint8Array) =>
    Effect.gen(function* () {
      const connection = yield* (yield* Transport.Transport).connect(visitorsAt)
      const from = yield* Clock.currentTimeMillis
      yield* connection.write(bytes)
      assert.strictEqual((yield* Effect.flip(connection.read)).reason, "Reset")
      return (yield* Clock.currentTimeMillis) - from
    })

  it.prop(
    "of NP_TCP_DIAL_TIMEOUT ends the dial of a target that does not answer",
    [FastCheck.constantFrom("alone" as const, "dialler" as const), limit],
    ([side, limit]) => {
      LimitWorld.run({ side, settings: { tcpDialTimeout: Duration.millis(limit) } }, ({ network, tunnel }) =>
        Effect.gen(function* () {
          yield* network.partition(side === "alone" ? "receiver" : "dialler", "target")
          within(limit, 20, yield* waits(new Uint8Array(1)))
          assert.strictEqual((yield* tunnel.checkpoint).refused["target"], 1)
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it.prop(
    "of NP_UDP_DIAL_TIMEOUT ends the look-up of a UDP target",
    [FastCheck.constantFrom("alone" as const, "dialler" as const), limit],
    ([side, limit]) => {
      // The name server does not answer.
      const dialling = (transport: Layer.Layer<Transport.Transport>) =>
        Layer.map(transport, (context) =>
          Context.make(Transport.Transport, {
            ...Context.get(context, Transport.Transport),
            associate: () => Effect.never
          })
        )
      LimitWorld.run({ side, settings: { udpDialTimeout: Duration.millis(limit) }, dialling }, ({ tunnel }) =>
        Effect.gen(function* () {
          const socket = yield* (yield* Transport.Transport).associate(visitorsAt)
          yield* socket.send([{ peer: visitorsAt, bytes: new Uint8Array(1) }])
          yield* Effect.sleep(limit - 1)
          assert.strictEqual((yield* tunnel.checkpoint).refused["target"], 0)
          yield* Effect.sleep(20)
          assert.strictEqual((yield* tunnel.checkpoint).refused["target"], 1)
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it.prop(
    "of NP_HANDSHAKE_TIMEOUT closes a connection to the tunnel port that sends nothing",
    [limit],
    ([limit]) => {
      LimitWorld.run({ side: "receiver", settings: { handshakeTimeout: Duration.millis(limit + 200) } }, ({ tunnel }) =>
        Effect.gen(function* () {
          const connection = yield* (yield* Transport.Transport).connect(Address.make("receiver", 10101))
          const from = yield* Clock.currentTimeMillis
          yield* Effect.either(Effect.repeat(connection.read, { until: Option.isNone }))
          within(limit + 190, 30, (yield* Clock.currentTimeMillis) - from)
          assert.strictEqual((yield* tunnel.checkpoint).refused["handshake"], 1)
        })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it.prop(
    "of NP_HANDSHAKE_TIMEOUT resets a visitor that sends no whole PROXY header",
    [FastCheck.constantFrom("alone" as const, "receiver" as const), limit],
    ([side, limit]) => {
      LimitWorld.run(
        { side, query: "proxy-in=1", settings: { handshakeTimeout: Duration.millis(limit + 200) } },
        ({ tunnel }) =>
          Effect.gen(function* () {
            within(limit + 190, 30, yield* waits(utf8("PROXY ")))
            assert.strictEqual((yield* tunnel.checkpoint).refused["header"], 1)
          })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )

  it.prop(
    "of NP_POOL_GET_TIMEOUT refuses a visitor while the other side is not connected",
    [limit],
    ([limit]) => {
      LimitWorld.run(
        { side: "receiver", settings: { poolGetTimeout: Duration.millis(limit) } },
        ({ network, tunnel }) =>
          Effect.gen(function* () {
            yield* network.crash("dialler")
            yield* Effect.sleep("1 second")
            within(limit, 20, yield* waits(new Uint8Array(1)))
            assert.strictEqual((yield* tunnel.checkpoint).refused["pool"], 1)
          })
      )
    },
    { fastCheck: { numRuns: runs(2, 10) } }
  )
})
