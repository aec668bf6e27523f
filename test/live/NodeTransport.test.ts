import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { readdirSync } from "node:fs"
import * as Os from "node:os"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import { options } from "../../src/node/kernel/ffi/Sockets.js"
import { kernel } from "../../src/node/kernel/Kernel.js"
import * as KernelConnection from "../../src/node/kernel/KernelConnection.js"
import * as KernelTransport from "../../src/node/kernel/KernelTransport.js"
import * as NodeHosts from "../../src/node/socket/NodeHosts.js"
import * as NodeTransport from "../../src/node/socket/NodeTransport.js"
import * as IdleConnections from "../../src/pool/IdleConnections.js"
import { ConnectionId } from "../../src/wire/Signal.js"
import { type Connection, type OwnedByCaller, Transport, type TransportError } from "../../src/transport/Transport.js"
import { pause } from "./command/Nodepass.js"
import * as LiveCertificates from "./LiveCertificates.js"
import { overTls, tlsSuite } from "../compliance/Tls.js"
import * as Datagrams from "../compliance/Datagrams.js"
import { suite, type World } from "../compliance/Transport.js"

const handles = () => process.getActiveResourcesInfo().filter((name) => /^(TCP|UDP)/.test(name)).length
const descriptors = () => (process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0)

// Those of test files before this one close in their own time.
beforeAll(async () => {
  while (handles() > 0) await pause()
})

/** Node removes a closed handle after the immediates of the turn that closed it. */
const turn = Effect.async<void>((resume) => {
  setImmediate(() => setImmediate(() => resume(Effect.void)))
})

const runIn =
  (layer: Layer.Layer<Transport>) =>
  <E>(program: Effect.Effect<void, E, Scope.Scope | Transport>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const before = descriptors()
      return program.pipe(
        Effect.scoped,
        Effect.provide(layer),
        Effect.orDie,
        Effect.zipRight(turn),
        Effect.zipRight(
          Effect.sync(() => {
            assert.strictEqual(handles(), 0)
            assert.isAtMost(descriptors(), before)
          })
        )
      )
    })

const flood: World["flood"] = { chunks: 560, bytes: 65_536, limit: 32 * 1024 * 1024 }
const certificate = Effect.runSync(
  Effect.cached(LiveCertificates.certificate({ issuer: "itself", names: ["nodepass"] }))
)

const kernelTransport = (replaced: { readonly openSsl?: undefined }) =>
  Layer.effect(
    Transport,
    Effect.map(Effect.orDie(kernel), (kernel) => KernelTransport.make({ kernel: { ...kernel, ...replaced } }))
  )
// Loaded here, since its descriptors stay open.
if (process.platform === "linux") await Effect.runPromise(kernel)

describe.each([
  { name: "NodeTransport", layer: NodeTransport.layer },
  ...(process.platform === "linux"
    ? [
        { name: "KernelTransport", layer: kernelTransport({}) },
        { name: "KernelTransport with the TLS of Node", layer: kernelTransport({ openSsl: undefined }) }
      ]
    : [])
])("$name", ({ layer, name }) => {
  const run = runIn(layer)

  suite(name, { run, flood })
  suite(`${name} over TLS`, { run: runIn(Layer.provide(overTls(certificate), layer)), flood })
  tlsSuite(name, { run, ...LiveCertificates })
  Datagrams.suite(`${name} datagrams`, { run, flood })

  it.live("a listener on all interfaces reports an IPv4 visitor with its IPv4 address", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        for (const host of ["", "*", "0.0.0.0"]) {
          const listener = yield* transport.listen(Address.make(host, 0))
          const client = yield* transport.connect(Address.make("127.0.0.1", listener.address.port))
          const server = yield* listener.accept
          assert.strictEqual(server.remote.host, "127.0.0.1")
          assert.strictEqual(server.local.host, "127.0.0.1")
          assert.strictEqual(server.remote.port, client.local.port)
        }
      })
    )
  )

  it.live("nothing is read before a read, so closing the scope resets a peer whose bytes are unread", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
        const outer = yield* Effect.scope
        for (const side of ["accepted", "dialled"] as const) {
          const scope = yield* Scope.make()
          const dialled = yield* Scope.extend(transport.connect(listener.address), side === "dialled" ? scope : outer)
          const accepted = yield* Scope.extend(listener.accept, side === "accepted" ? scope : outer)
          const peer = side === "dialled" ? accepted : dialled
          yield* peer.write(new Uint8Array(1000))
          yield* turn
          yield* Scope.close(scope, Exit.void)
          const seen = Effect.match(peer.read, {
            onFailure: ({ reason }) => reason,
            onSuccess: () => "Success" as const
          })
          assert.strictEqual(yield* seen, "Reset")
        }
      })
    )
  )

  it.live("when the peer resets while writes wait, the write fails", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
        for (let visit = 0; visit < 20; visit++) {
          const client = yield* transport.connect(listener.address)
          const server = yield* listener.accept
          const writing = yield* Effect.fork(Effect.exit(Effect.forever(client.write(new Uint8Array(100_000)))))
          yield* server.reset
          const exit = yield* Fiber.join(writing)
          assert.isTrue(Exit.isFailure(exit))
        }
      })
    )
  )

  it.live("a name with several addresses is listened on at each of them, TCP and UDP alike, with one port", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(Address.make("localhost", 0))
        const socket = yield* transport.bind(Address.make("localhost", listener.address.port))
        for (const { host } of NodeHosts.loopback()) {
          const to = Address.make(host, listener.address.port)
          // One after the other, with more than the port that was used last.
          for (let visit = 0; visit < 2; visit++) {
            const client = yield* transport.connect(to)
            assert.strictEqual((yield* listener.accept).remote.port, client.local.port)
          }
          const peer = yield* transport.associate(to)
          yield* peer.send([{ peer: to, bytes: Uint8Array.of(1) }])
          const [question] = yield* socket.receive
          assert.strictEqual(question?.peer.host, host)
          if (question !== undefined) yield* socket.send([{ peer: question.peer, bytes: Uint8Array.of(2) }])
          assert.deepStrictEqual([...((yield* peer.receive)[0]?.bytes ?? [])], [2])
        }
        const busy = yield* Effect.flip(transport.listen(Address.make("localhost", listener.address.port)))
        assert.strictEqual(busy.reason, "AddressInUse")
      })
    )
  )

  it.live("a UDP peer whose first address refuses is sent to at its next one", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        if (NodeHosts.loopback().length < 2) return
        const server = yield* transport.bind(Address.make("::1", 0))
        const to = Address.make("localhost", server.address.port)
        const peer = yield* transport.associate(to)
        yield* peer.send([{ peer: to, bytes: Uint8Array.of(1) }])
        const answer = yield* Effect.fork(peer.receive)
        const [question] = yield* server.receive
        assert.deepStrictEqual([...(question?.bytes ?? [])], [1])
        if (question !== undefined) yield* server.send([{ peer: question.peer, bytes: Uint8Array.of(2) }])
        assert.deepStrictEqual([...((yield* Fiber.join(answer))[0]?.bytes ?? [])], [2])
      })
    )
  )

  it.live("an IPv6 zone names the interface, or its index, for TCP and UDP, also with a global address", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        for (const zone of ["none9", "99999"]) {
          const unknown = Address.make(`fe80::1%${zone}`, 9)
          for (const open of [transport.connect, transport.listen, transport.bind, transport.associate]) {
            const { message } = yield* Effect.flip(Effect.asVoid<unknown, TransportError, Scope.Scope>(open(unknown)))
            assert.include(message, `no network interface ${zone}`)
          }
        }
        for (const [zone, addresses] of Object.entries(Os.networkInterfaces())) {
          for (const own of addresses ?? []) {
            if (own.family !== "IPv6" || !own.address.startsWith("fe80:")) continue
            for (const named of [zone, String(own.scopeid)]) {
              const host = `${own.address}%${named}`
              const listener = yield* transport.listen(Address.make(host, 0))
              const client = yield* transport.connect(Address.make(host, listener.address.port))
              assert.strictEqual((yield* listener.accept).remote.port, client.local.port)
              const socket = yield* transport.bind(Address.make(host, 0))
              const to = Address.make(host, socket.address.port)
              const visitor = yield* transport.associate(to)
              yield* visitor.send([{ peer: to, bytes: Uint8Array.of(1) }])
              const [question] = yield* socket.receive
              if (question === undefined) return assert.fail("no datagram")
              yield* socket.send([{ peer: question.peer, bytes: Uint8Array.of(2) }])
              assert.deepStrictEqual([...((yield* visitor.receive)[0]?.bytes ?? [])], [2])
            }
          }
        }
      })
    )
  )

  it.live("reaches finds the targets that lead to this machine", () =>
    run(
      Effect.gen(function* () {
        const { reaches } = yield* Transport
        const own = Object.values(Os.networkInterfaces()).flatMap((all) => all ?? [])
        const cases: ReadonlyArray<readonly [target: string, own: string, expected: boolean]> = [
          ["127.0.0.1", "127.0.0.1", true],
          ["localhost", "127.0.0.1", true],
          ["127.0.0.2", "127.0.0.1", false],
          ["127.0.0.2", "", true],
          ["", "0.0.0.0", true],
          ["192.0.2.255", "", false],
          ["nobody.invalid", "", false],
          ...own.map(({ address }) => [address, "", true] as const)
        ]
        for (const [target, host, expected] of cases) {
          assert.strictEqual(yield* reaches(Address.make(target, 1), Address.make(host, 1)), expected, target)
        }
      })
    )
  )
})

describe.runIf(process.platform === "linux")("KernelTransport", () => {
  it.live.each(["end", "reset"] as const)(
    "hands out no idle connection of which the system knows the %s of its peer, before the process does",
    (how) =>
      runIn(kernelTransport({}))(
        Effect.gen(function* () {
          const transport = yield* Transport
          const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
          const idle = yield* IdleConnections.make({
            expect: "nothing",
            arrivalTimeout: Duration.zero,
            launchTimeout: Duration.zero,
            onDemand: () => undefined
          })
          const add = (id: string) =>
            Effect.gen(function* () {
              const scope = yield* Scope.make()
              const connection = yield* Scope.extend(transport.connect(listener.address), scope)
              yield* idle.add({ id: ConnectionId.make(id), connection, scope })
              return { connection, far: yield* listener.accept }
            })
          const first = yield* add("00000001")
          yield* add("00000002")
          yield* first.far[how]
          // No turn of the event loop, in which the poller would report it.
          for (const begin = performance.now(); first.connection.inspect?.().state === "open";) {
            assert.isBelow(performance.now() - begin, 5000)
          }
          const taken = idle.takeNow()
          assert.strictEqual(taken?.id, "00000002")
          assert.isUndefined(idle.takeNow())
          if (taken !== undefined) yield* Scope.close(taken.scope, Exit.void)
        }).pipe(Effect.provide(Deadlines.layer))
      )
  )

  it.live("offers each connection first, while a fiber waits for one, and gives the others to that fiber", () =>
    runIn(kernelTransport({}))(
      Effect.gen(function* () {
        const transport = yield* Transport
        const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
        const taken: Array<OwnedByCaller> = []
        let isWelcome = true
        const stop = listener.offer?.((connection) => {
          if (isWelcome) taken.push(connection)
          return isWelcome
        })
        const connect = transport.connect(listener.address)
        // Nobody accepts: it waits.
        const first = yield* connect
        yield* Effect.sleep("20 millis")
        assert.strictEqual(taken.length, 0)
        const accepted = yield* Effect.fork(Effect.scoped(Effect.map(listener.accept, ({ remote }) => remote)))
        while (taken.length < 1) yield* Effect.sleep("1 millis")
        yield* connect
        while (taken.length < 2) yield* Effect.sleep("1 millis")
        assert.deepStrictEqual(taken[0]?.remote, first.local)
        isWelcome = false
        const third = yield* connect
        assert.deepStrictEqual(yield* Fiber.join(accepted), third.local)
        isWelcome = true
        stop?.()
        const fourth = yield* connect
        assert.deepStrictEqual((yield* listener.accept).remote, fourth.local)
        assert.strictEqual(taken.length, 2)
        for (const connection of taken) connection.close()
        assert.isTrue(Option.isNone(yield* first.read))
      })
    )
  )

  it.live("connects without a fiber where it needs no lookup, and says when that has failed", () =>
    runIn(kernelTransport({}))(
      Effect.gen(function* () {
        const { connectNow, listen } = yield* Transport
        const dial = (address: Address.Address) =>
          Effect.async<string>((resume) => {
            const cancel = connectNow?.(address, {
              opened: (connection) => {
                connection.close()
                resume(Effect.succeed(String(connection.remote)))
              },
              failed: ({ reason }) => resume(Effect.succeed(reason))
            })
            if (cancel === undefined) resume(Effect.succeed("nothing"))
            return Effect.sync(() => cancel?.())
          })
        const { address } = yield* Effect.scoped(listen(Address.make("127.0.0.1", 0)))
        assert.strictEqual(yield* dial(address), "Refused")
        assert.strictEqual(yield* dial(Address.make("name.invalid", address.port)), "nothing")
        const listener = yield* listen(Address.make("127.0.0.1", 0))
        assert.strictEqual(yield* dial(listener.address), String(listener.address))
        // Other addresses of the name are tried as well.
        const { port } = listener.address
        assert.strictEqual(yield* dial(Address.make("localhost", port)), String(listener.address))
        yield* Fiber.interrupt(yield* Effect.fork(dial(Address.make("192.0.2.1", 9))))
      })
    )
  )

  it.live("the kernel probes an idle connection every few seconds, and one that carries a visitor rarely", () =>
    runIn(kernelTransport({}))(
      Effect.gen(function* () {
        const { sockets } = yield* Effect.orDie(kernel)
        const transport = yield* Transport
        const listener = yield* transport.listen(Address.make("127.0.0.1", 0))
        const client = yield* transport.connect(listener.address)
        const server = yield* listener.accept
        const value = new Int32Array(1)
        const optionsOf = (connection: Connection) =>
          [options.keepAlive, options.keepIdle, options.keepInterval, options.userTimeout].map((option) => {
            sockets.get(KernelConnection.socketOf(connection)?.fd ?? -1, option, new Uint8Array(value.buffer))
            return value[0]
          })
        for (const connection of [client, server]) {
          const unwatch = yield* connection.watch(() => undefined)
          assert.deepStrictEqual(optionsOf(connection), [1, 3, 2, 8000])
          yield* unwatch
          assert.deepStrictEqual(optionsOf(connection), [1, 30, 75, 0])
        }
      })
    )
  )
})
