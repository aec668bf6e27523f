import { assert, describe, it } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Address from "../../src/core/Address.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import * as Transport from "../../src/transport/Transport.js"
import * as Tunnel from "../../src/tunnel/Tunnel.js"
import type * as TunnelEvent from "../../src/core/TunnelEvent.js"
import * as configs from "./worlds/configs.js"
import * as TunnelHost from "./worlds/TunnelHost.js"
import * as Simulated from "../Simulated.js"

class First extends Context.Tag("test/First")<First, Tunnel.Tunnel["Type"]>() {}
class Second extends Context.Tag("test/Second")<Second, Tunnel.Tunnel["Type"]>() {}

const target = Address.make("target", 80)
const forward = (port: number) =>
  configs.client({ tunnel: Address.make("edge", port), targets: [target], mode: "forward", slot: 10 })

/** Echoes every byte until the visitor ends. */
const echo = Effect.gen(function* () {
  const transport = yield* Transport.Transport
  const listener = yield* transport.listen(target)
  const answer = (connection: Transport.Connection): Effect.Effect<void, Transport.TransportError> =>
    Effect.flatMap(connection.read, (chunk) =>
      Option.isNone(chunk) ? connection.end : Effect.zipRight(connection.write(chunk.value), answer(connection))
    )
  yield* Effect.forkScoped(Transport.serve(listener, (connection) => Effect.ignore(answer(connection))))
})

const world = <A, E>(
  program: (network: SimNetwork.SimNetwork) => Effect.Effect<A, E, Scope.Scope | Transport.Transport>
) => {
  const network = SimNetwork.make({ latency: Duration.millis(5) })
  const main = Effect.gen(function* () {
    yield* Effect.provide(echo, network.host("target"))
    return yield* program(network)
  })
  return Simulated.run({ seed: 7, network }, () => main.pipe(Effect.provide(network.host("visitor"))))
}

const host = (network: SimNetwork.SimNetwork) =>
  Layer.mergeAll(
    network.host("edge"),
    SimCrypto.layer(1),
    SimCertificates.disk(1).layer,
    Tunnel.layerDefaults,
    Settings.layer({ shutdownTimeout: Duration.seconds(2) })
  )

describe("Tunnel", () => {
  it("two tunnels of one host share nothing", () => {
    world((network) =>
      Effect.gen(function* () {
        const both = Layer.mergeAll(
          Layer.effect(First, Tunnel.Tunnel).pipe(Layer.provide(Tunnel.layer(forward(1)))),
          Layer.effect(Second, Tunnel.Tunnel).pipe(Layer.provide(Tunnel.layer(forward(2))))
        )
        const services = yield* Layer.build(Layer.provide(both, host(network)))
        const transport = yield* Transport.Transport
        const visit = yield* transport.connect(Address.make("edge", 1))
        yield* visit.write(new Uint8Array(3))
        yield* visit.read
        assert.strictEqual((yield* Context.get(services, First).checkpoint).tcpTx, 3)
        assert.strictEqual((yield* Context.get(services, Second).checkpoint).tcpTx, 0)
      })
    )
  })

  it("the side that dials the targets probes them, and a side that visitors connect to does not", () => {
    world((network) =>
      Effect.gen(function* () {
        for (const receiver of ["server", "client"] as const) {
          const start = (role: "server" | "client", mode: number) => {
            const at = receiver === role ? `${role}:8080` : "target:81"
            const text = `${role}://server:10101/${at}?mode=${mode}&check=1s`
            return TunnelHost.start({ transport: network.host(role), seed: mode, text })
          }
          yield* Effect.gen(function* () {
            const tunnels = [yield* start("server", receiver === "server" ? 1 : 2), yield* start("client", 2)]
            const listener = yield* (yield* Transport.Transport).listen(Address.make("target", 81))
            let probes = 0
            yield* Effect.forkScoped(Transport.serve(listener, () => Effect.sync(() => probes++)))
            yield* Effect.sleep(Duration.seconds(10))
            assert.isAtLeast(probes, 9)
            for (const tunnel of tunnels) assert.strictEqual((yield* tunnel.checkpoint).visitors, 0)
          }).pipe(Effect.scoped, Effect.provide(network.host("target")))
        }
      })
    )
  })

  it("publishes events: sessions that begin, break, resume and end, launches, refusals, the pool", () => {
    world((network) =>
      Effect.gen(function* () {
        const text = (role: "server" | "client", target: string) => `${role}://server:10101/${target}?slot=1`
        const start = (role: "server" | "client", target: string) =>
          TunnelHost.start({ transport: network.host(role), seed: 1, text: text(role, target) })
        const server = yield* start("server", "server:8080")
        const clientScope = yield* Scope.make()
        const listen = (tunnel: Tunnel.Tunnel["Type"]) =>
          Effect.gen(function* () {
            const events: Array<string> = []
            const nameOf = (event: TunnelEvent.TunnelEvent) => {
              switch (event._tag) {
                case "SessionUp":
                  return event.resumed ? "resumed" : "up"
                case "SessionLost":
                  return event.over ? "over" : "lost"
                case "Launched":
                  return `${event.direction} ${event.protocol}`
                case "Refused":
                  return event.kind
                case "PoolLevel":
                  return event.idle === 0 ? "empty" : "filled"
                default:
                  return event._tag
              }
            }
            yield* Effect.forkScoped(
              Stream.runForEach(tunnel.events(), (event) => Effect.sync(() => events.push(nameOf(event))))
            )
            return events
          })
        const atServer = yield* listen(server)
        const client = yield* Scope.extend(start("client", "target:80"), clientScope)
        const atClient = yield* listen(client)
        yield* Effect.all([server.ready, client.ready])
        yield* Effect.sleep("1 second")

        const transport = yield* Transport.Transport
        const visit = yield* transport.connect(Address.make("server", 8080))
        yield* visit.write(new Uint8Array(1))
        yield* visit.read
        const refused = yield* transport.connect(Address.make("server", 8080))
        assert.strictEqual((yield* Effect.flip(refused.read)).reason, "Reset")
        yield* network.cut("client", "server", { limit: 1 })
        yield* Effect.sleep("10 seconds")
        yield* Scope.close(clientScope, Exit.void)
        yield* Effect.sleep("1 second")

        const [control, pool] = Arr.partition(atServer, (name) => name === "filled" || name === "empty")
        assert.deepStrictEqual(control, ["up", "sent tcp", "slot", "lost", "resumed", "over"])
        assert.deepStrictEqual(pool, ["filled", "empty"])
        assert.deepStrictEqual(
          atClient.filter((name) => name !== "filled" && name !== "empty"),
          ["up", "received tcp", "lost", "resumed", "over"]
        )
      })
    )
  })

  it("a stop refuses new visitors, lets others finish, and resets those that do not", () => {
    world((network) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(Layer.provide(Tunnel.layer(forward(1)), host(network)), scope)
        const transport = yield* Transport.Transport
        const edge = Address.make("edge", 1)
        const finishes = yield* transport.connect(edge)
        const stays = yield* transport.connect(edge)
        for (const visit of [finishes, stays]) {
          yield* visit.write(new Uint8Array(1))
          yield* visit.read
        }
        const stopping = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* Effect.sleep(Duration.millis(100))

        assert.strictEqual((yield* Effect.flip(transport.connect(edge))).reason, "Refused")
        yield* finishes.write(new Uint8Array(2))
        assert.strictEqual(Option.getOrThrow(yield* finishes.read).length, 2)
        yield* finishes.end
        assert.isTrue(Option.isNone(yield* finishes.read))

        assert.strictEqual((yield* Effect.flip(stays.read)).reason, "Reset")
        yield* stopping.await
      })
    )
  })
})
