import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Address from "../../src/core/Address.js"
import { type Connection, serve, Transport } from "../../src/transport/Transport.js"
import type * as Tunnel from "../../src/tunnel/Tunnel.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig, tunnelPort } from "./worlds/SmallWorld.js"

const seconds = (count: number) => Effect.sleep(Duration.seconds(count))
const replace = ({ replaceKey }: Tunnel.Tunnel["Type"], key: string) => replaceKey(Option.some(Redacted.make(key)))
/** A key that is the subject of no warning. */
const strong = (letter: string) => Option.some(Redacted.make(`q3f7n5x2k6w4m2z7t5r3b6h4c${letter}`))

describe("a replaced tunnel key", () => {
  it("admits pool connections to a session that it authenticated, during the grace period only", () => {
    const settings = { keyGrace: Duration.seconds(5) }
    const reason = SmallWorld.run({ settings }, ({ attach, join, start }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        const { keys } = yield* attach("client", "0123456789abcdef")
        yield* join("client", keys, 0)
        yield* replace(server, "another")
        yield* join("client", keys, 1)
        yield* seconds(6)
        return (yield* Effect.flip(join("client", keys, 2))).reason
      })
    )
    assert.strictEqual(reason, "NoAnswer")
  })

  it("opens no control connection when its grace period ends during the handshake", () => {
    const settings = { keyGrace: Duration.seconds(4) }
    const reason = SmallWorld.run({ link: { latency: 1000 }, settings }, ({ attach, start }) =>
      Effect.gen(function* () {
        const server = yield* start("server", serverConfig)
        yield* replace(server, "another")
        return (yield* Effect.flip(attach("client", "0123456789abcdef"))).reason
      })
    )
    assert.strictEqual(reason, "Ended")
  })

  it.each([
    ["server", "client"],
    ["client", "server"]
  ] as const)("leaves the session and the filling of its pool uninterrupted, replaced on the %s first", (...sides) => {
    const settings = { keyGrace: Duration.seconds(5) }
    const { answers, log } = SmallWorld.run({ link: { latency: 10 }, settings }, ({ log, network, start, visit }) =>
      Effect.gen(function* () {
        const tunnels = {
          server: yield* start("server", serverConfig),
          client: yield* start("client", clientConfig)
        }
        yield* tunnels.client.ready
        const answers: Array<string> = []
        for (const key of ["second", "third", "second"]) {
          for (const side of sides) {
            yield* replace(tunnels[side], key)
            yield* seconds(1)
            yield* tunnels.server.flush
            answers.push(yield* visit)
          }
          yield* seconds(8)
          yield* network.cut("server", "client")
          answers.push(yield* visit)
        }
        return { answers, log: log.slice() }
      })
    )
    assert.deepStrictEqual(new Set(answers), new Set(["hi"]))
    assert.strictEqual(log.filter((line) => line === "connected").length, 1)
    assert.notInclude(log.join("\n"), "offered a pool connection for a session that is over")
  })

  it.each([
    ["server", "client"],
    ["client", "server"]
  ] as const)("causes no warning, on either side, replaced on the %s first", (...sides) => {
    const settings = { keyGrace: Duration.seconds(5) }
    const { log, warnings } = SmallWorld.run({ link: { latency: 10 }, settings }, ({ log, start, visit, warnings }) =>
      Effect.gen(function* () {
        const tunnels = {
          server: yield* start("server", { ...serverConfig, key: strong("a") }),
          client: yield* start("client", { ...clientConfig, key: strong("a") })
        }
        yield* tunnels.client.ready
        for (const [key, between] of [["b", 0] as const, ["c", 1] as const, ["d", 4] as const]) {
          for (const side of sides) {
            yield* tunnels[side].replaceKey(strong(key))
            yield* seconds(between)
            yield* visit
          }
          yield* seconds(8)
          yield* visit
        }
        return { warnings: warnings.slice(), log: log.slice() }
      })
    )
    assert.deepStrictEqual(warnings, [], log.join("\n"))
    assert.include(log, "connected again")
  })

  it("causes no warning when its client, which has it first, comes from another address", () => {
    const nat = Address.make("nat", 1)
    const { log, warnings } = SmallWorld.run(
      { link: { latency: 10 }, settings: { keyGrace: Duration.seconds(5) } },
      ({ connect, log, network, start, warnings }) =>
        Effect.gen(function* () {
          let host = "first"
          const copy = (from: Connection, to: Connection): Effect.Effect<void> =>
            Effect.matchEffect(from.read, {
              onFailure: () => to.reset,
              onSuccess: Option.match({
                onNone: () => Effect.ignore(to.end),
                onSome: (bytes) =>
                  Effect.matchEffect(to.write(bytes), { onFailure: () => from.reset, onSuccess: () => copy(from, to) })
              })
            })
          const listener = yield* (yield* Effect.provide(Transport, network.host("nat"))).listen(nat)
          yield* Effect.forkScoped(
            serve(listener, (near) =>
              Effect.gen(function* () {
                const far = yield* connect(host, tunnelPort)
                yield* Effect.all([copy(near, far), copy(far, near)], { concurrency: 2 })
              }).pipe(Effect.scoped, Effect.ignore)
            )
          )
          const server = yield* start("server", { ...serverConfig, key: strong("a") })
          const client = yield* start("client", { ...clientConfig, min: 2, tunnel: nat, key: strong("a") })
          yield* client.ready
          host = "second"
          yield* client.replaceKey(strong("b"))
          yield* seconds(3)
          yield* server.replaceKey(strong("b"))
          yield* seconds(8)
          const quiet = warnings.slice()
          // A stranger is one line, from the address of the client too.
          yield* start("stranger", { ...clientConfig, tunnel: nat, key: strong("c") })
          yield* seconds(3)
          return { warnings: [quiet, warnings.filter((line) => line.startsWith("second:"))], log: log.slice() }
        }).pipe(Effect.scoped)
    )
    assert.deepStrictEqual(warnings[0], [], log.join("\n"))
    assert.isAtLeast(warnings[1]?.length ?? 0, 1, log.join("\n"))
    assert.include(log, "connected again")
  })

  it("is the subject of one warning when it is weak or missing, as the first key is", () => {
    const strong = "q3f7n5x2k6w4m2z7t5r3b6h4cd"
    const warnings = SmallWorld.run({}, ({ log, start }) =>
      Effect.gen(function* () {
        const config = { ...serverConfig, key: Option.some(Redacted.make(strong)) }
        const { replaceKey } = yield* start("server", config)
        yield* start("client", clientConfig)
        for (const key of [Option.some(Redacted.make("hunter2")), Option.none(), config.key]) yield* replaceKey(key)
        return log.flatMap((line) => /^(?:no tunnel key|the tunnel key is [^:]*)/.exec(line) ?? [])
      })
    )
    const common = "the tunnel key is one that many people use"
    assert.deepStrictEqual(warnings, [common, common, "no tunnel key"])
  })
})
