import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Address from "../../src/core/Address.js"
import { type Connection, serve, Transport } from "../../src/transport/Transport.js"
import type * as Tunnel from "../../src/tunnel/Tunnel.js"
import * as Signal from "../../src/wire/Signal.js"
import { runs } from "../Runs.js"
import * as MemoryStore from "./worlds/MemoryStore.js"
import * as SmallWorld from "./worlds/SmallWorld.js"

type Side = "server" | "client"

interface Scenario {
  readonly seed: number
  readonly killed: Side
  readonly streams: boolean
  /** Milliseconds after the first visitor was served. */
  readonly killedAt: number
  /** Milliseconds until the next process starts. */
  readonly away: number
}

const places = { server: String(SmallWorld.tunnelPort), client: `client-${String(SmallWorld.tunnelPort)}` }
const echoTarget = Address.make("target", 81)

/** Echoes what a visitor sends, and notes it. */
const echo = (connection: Connection, note: (bytes: Uint8Array) => void): Effect.Effect<void, unknown> =>
  Effect.flatMap(
    connection.read,
    Option.match({
      onNone: () => connection.end,
      onSome: (bytes) => {
        note(bytes)
        return Effect.zipRight(connection.write(bytes), echo(connection, note))
      }
    })
  )

/** A lasting signal as a process sent or received it. */
interface Seen {
  readonly number: number
  readonly text: string
}
const watch = (tunnel: Tunnel.Tunnel["Type"], direction: "sent" | "received", seen: Array<Seen>) =>
  Effect.forkScoped(
    Stream.runForEach(tunnel.signals({ capacity: 4096 }), (heard) =>
      Effect.sync(() => {
        if (heard._tag === "Lagged") return assert.fail("signals were missed")
        if (heard.direction !== direction || Option.isNone(heard.number)) return
        seen.push({ number: heard.number.value, text: Signal.toText(heard.signal) })
      })
    )
  )

/** One side is killed while visitors come and signals are exchanged, and a new process starts. */
const run = ({ away, killed, killedAt, seed, streams }: Scenario) => {
  const store = MemoryStore.make()
  const stays: Side = killed === "server" ? "client" : "server"
  return SmallWorld.run(
    { seed, host: store.layer, link: { latency: 10, jitter: 5 } },
    ({ connect, log, network, start }) =>
      Effect.gen(function* () {
        /** Of each visitor, by its number. */
        const asked: Array<string> = []
        let visits = 0
        const transport = yield* Effect.provide(Transport, network.host("target"))
        const listener = yield* transport.listen(echoTarget)
        yield* Effect.forkScoped(
          serve(listener, (connection) => Effect.ignore(echo(connection, (bytes) => void asked.push(bytes.join()))))
        )
        const configs = {
          server: { ...SmallWorld.serverConfig, streams, max: 8 },
          client: { ...SmallWorld.clientConfig, streams, min: 4, targets: [echoTarget] as const }
        }
        /** Whether the visitor was echoed. It stays until it is reset, when `stays` is set. */
        const visit = (options?: { readonly stays: boolean }) =>
          Effect.gen(function* () {
            const connection = yield* connect("visitor", SmallWorld.visitorsPort)
            const number = visits++
            yield* connection.write(new Uint8Array([number >>> 8, number & 255]))
            const answer = yield* connection.read
            if (options?.stays === true) yield* Effect.ignore(connection.read)
            return Option.isSome(answer)
          }).pipe(
            Effect.scoped,
            Effect.catchAll(() => Effect.succeed(false))
          )

        const processes = { first: yield* Scope.make(), next: yield* Scope.make() }
        yield* Effect.addFinalizer(() => Scope.close(processes.next, Exit.void))
        const bySent: Array<Seen> = []
        const byNextSent: Array<Seen> = []
        const received: Array<Seen> = []
        const survivor = yield* start(stays, configs[stays])
        const first = yield* Scope.extend(start(killed, configs[killed]), processes.first)
        yield* watch(survivor, "received", received)
        yield* Scope.extend(watch(first, "sent", bySent), processes.first)
        yield* survivor.ready
        const served = yield* visit()
        let visitors = 3
        for (let n = 0; n < visitors; n++) {
          yield* Effect.forkScoped(
            Effect.ensuring(
              visit({ stays: true }),
              Effect.sync(() => visitors--)
            )
          )
        }
        // Visitors at any moment.
        yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.forkScoped(visit()), Duration.millis(29))))
        // Signals of both sides.
        yield* Effect.forkScoped(
          Effect.forever(
            Effect.delay(
              Effect.suspend(() => Effect.zipRight(survivor.flush, first.flush)),
              Duration.millis(150)
            )
          )
        )
        yield* Effect.sleep(Duration.millis(killedAt))
        yield* network.crash(killed)
        store.kill(places[killed])
        yield* Effect.forkScoped(Scope.close(processes.first, Exit.void))
        yield* Effect.sleep(Duration.millis(away))
        const next = yield* Scope.extend(start(killed, configs[killed]), processes.next)
        yield* Scope.extend(watch(next, "sent", byNextSent), processes.next)
        yield* next.ready
        // Not after the grace: some round trips and a turn of the sweeps.
        yield* Effect.sleep(Duration.seconds(1))
        const left = { visitors }
        const [seconds, servedAgain] = yield* Effect.timed(visit())
        yield* next.flush
        yield* Effect.sleep(Duration.millis(500))
        // What is sent later may not have arrived at the end.
        const sentEarly = numbers(byNextSent)
        yield* Effect.sleep(Duration.seconds(1))
        const count = (line: string) => log.filter((text) => text.startsWith(line)).length
        return {
          served,
          servedAgain,
          seconds: Duration.toSeconds(seconds),
          left,
          bySent,
          byNextSent,
          sentEarly,
          received,
          asked,
          begun: count("connected") - count("connected again"),
          resumed: count("client resumed its session"),
          log: log.slice()
        }
      })
  )
}

/** The sides are killed in this order, each after so many milliseconds, and started again; then a visitor comes. */
const runInTurn = (
  kills: ReadonlyArray<{ readonly sides: ReadonlyArray<Side>; readonly after: number }>,
  tls: "plain" | "self-signed"
) => {
  const store = MemoryStore.make()
  return SmallWorld.run({ host: store.layer, link: { latency: 10 } }, ({ log, network, start, visit }) =>
    Effect.gen(function* () {
      const configs = {
        server: { ...SmallWorld.serverConfig, tls: { mode: tls } },
        client: { ...SmallWorld.clientConfig, min: 4 }
      }
      const processes = new Map<Side, Scope.CloseableScope>()
      const begin = (side: Side) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          processes.set(side, scope)
          return yield* Scope.extend(start(side, configs[side]), scope)
        })
      const kill = (side: Side) =>
        Effect.gen(function* () {
          yield* network.crash(side)
          store.kill(places[side])
          yield* Effect.forkScoped(Scope.close(processes.get(side) ?? assert.fail("not started"), Exit.void))
        })
      yield* Effect.addFinalizer(() =>
        Effect.forEach(processes.values(), (scope) => Scope.close(scope, Exit.void), { discard: true })
      )
      let server = yield* begin("server")
      yield* begin("client")
      yield* server.ready
      assert.strictEqual(yield* visit, "hi")
      for (const { after, sides } of kills) {
        yield* Effect.sleep(Duration.millis(after))
        yield* Effect.forEach(sides, kill, { discard: true })
        for (const side of sides) {
          const started = yield* begin(side)
          if (side === "server") server = started
        }
      }
      yield* server.ready
      // A visitor that comes before the loss of the other side is noticed is reset, and tries again.
      assert.strictEqual(yield* Effect.retry(visit, { times: 1 }), "hi")
      return {
        begun: log.filter((line) => line === "connected").length,
        resumed: log.filter((line) => line === "client resumed its session").length,
        log: log.slice()
      }
    })
  )
}

const numbers = (seen: ReadonlyArray<Seen>) => seen.map(({ number }) => number)

describe("a side that is killed and starts again", () => {
  it.each([
    ["both sides at once", [{ sides: ["client", "server"], after: 3000 }]],
    [
      "a side again, before it has resumed",
      [
        { sides: ["client"], after: 3000 },
        { sides: ["client"], after: 1 },
        { sides: ["server"], after: 2000 },
        { sides: ["server"], after: 1 }
      ]
    ],
    [
      "one side after the other",
      [
        { sides: ["server"], after: 3000 },
        { sides: ["client"], after: 500 }
      ]
    ],
    ["a side that has been idle for five minutes", [{ sides: ["server"], after: 300_000 }]],
    ["the other side that has been idle for five minutes", [{ sides: ["client"], after: 300_000 }]]
  ] as const)("resumes its session: %s", (_, kills) => {
    for (const tls of ["plain", "self-signed"] as const) {
      const { begun, log, resumed } = runInTurn(kills, tls)
      assert.strictEqual(begun, 1, log.join("\n"))
      assert.isAtLeast(resumed, 1, log.join("\n"))
    }
  })

  it("learns again that the other side reaches no target", () => {
    const store = MemoryStore.make()
    const reasons = SmallWorld.run({ host: store.layer, link: { latency: 10 } }, ({ network, start, visit }) =>
      Effect.gen(function* () {
        const nobody = Address.make("target", 82)
        const reason = (side: Tunnel.Tunnel["Type"]) => Effect.map(side.checkpoint, ({ reason }) => reason)
        const first = yield* Scope.make()
        const server = yield* Scope.extend(start("server", SmallWorld.serverConfig), first)
        const client = yield* start("client", { ...SmallWorld.clientConfig, min: 4, targets: [nobody] })
        yield* server.ready
        yield* Effect.exit(visit)
        yield* Effect.sleep(Duration.seconds(1))
        const before = yield* reason(server)
        yield* network.crash("server")
        store.kill(places.server)
        yield* Effect.forkScoped(Scope.close(first, Exit.void))
        const next = yield* start("server", SmallWorld.serverConfig)
        yield* next.ready
        yield* Effect.sleep(Duration.seconds(1))
        return [before, yield* reason(next), yield* reason(client)]
      })
    )
    const [before, after] = reasons
    assert.match(before ?? "", /the client reaches no target/)
    assert.strictEqual(after, before)
  })

  it.prop(
    "resumes its session at once: the other side resets the visitors of before, and new ones are served",
    [
      FastCheck.record({
        seed: FastCheck.integer(),
        killed: FastCheck.constantFrom<Side>("server", "client"),
        streams: FastCheck.boolean(),
        killedAt: FastCheck.integer({ min: 400, max: 3000 }),
        away: FastCheck.integer({ min: 0, max: 4000 })
      })
    ],
    ([scenario]) => {
      const {
        asked,
        begun,
        bySent,
        byNextSent,
        left,
        log,
        received,
        resumed,
        seconds,
        sentEarly,
        served,
        servedAgain
      } = run(scenario)
      const context = `${JSON.stringify(scenario)}\n${log.join("\n")}`
      assert.isTrue(served && servedAgain, context)
      assert.isBelow(seconds, 2, context)
      assert.deepStrictEqual([begun, resumed], [1, 1], context)
      // The visitors of before are gone, and those that came meanwhile were served once at most.
      assert.deepStrictEqual(left, { visitors: 0 }, context)
      assert.strictEqual(new Set(asked).size, asked.length, context)
      // No number is given to two signals, and none is handled twice.
      const before = new Map(bySent.map(({ number, text }) => [number, text]))
      for (const { number, text } of byNextSent) assert.strictEqual(before.get(number) ?? text, text, context)
      assert.strictEqual(new Set(numbers(received)).size, received.length, context)
      // What the next process has sent has arrived.
      assert.includeMembers(numbers(received), sentEarly, context)
    },
    { fastCheck: { numRuns: runs(8, 400) } }
  )
})
