import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import * as Frame from "../../src/wire/Frame.js"
import { type Connection, serve, Transport } from "../../src/transport/Transport.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig, tunnelPort, visitorsPort } from "./worlds/SmallWorld.js"
import { runs } from "../Runs.js"

const middle = Address.make("middle", 1)
const target = Address.make("target", 81)

/** Copies from one connection to the other until the first ends. */
const pump = (from: Connection, to: Connection): Effect.Effect<void, unknown> =>
  Effect.flatMap(
    from.read,
    Option.match({
      onNone: () => to.end,
      onSome: (bytes) => Effect.zipRight(to.write(bytes), pump(from, to))
    })
  )

/** A proxy in front of the tunnel port that can cut the control connection alone. */
const sever = (world: SmallWorld.World) =>
  Effect.gen(function* () {
    const transport = yield* Effect.provide(Transport, world.network.host(middle.host))
    const listener = yield* transport.listen(middle)
    let control: Effect.Effect<void> = Effect.void
    let closed = false
    const carry = (from: Connection) =>
      Effect.gen(function* () {
        const first = Option.getOrElse(yield* from.read, () => new Uint8Array(0))
        const isControl = !Frame.toText(first).startsWith("//pool")
        if (isControl && closed) return yield* from.reset
        const to = yield* transport.connect(tunnelPort)
        if (isControl) control = Effect.zipRight(from.reset, to.reset)
        yield* to.write(first)
        const reset = Effect.zipRight(from.reset, to.reset)
        yield* Effect.all([Effect.onError(pump(from, to), () => reset), Effect.onError(pump(to, from), () => reset)], {
          concurrency: 2
        })
      }).pipe(Effect.ignore)
    yield* Effect.forkScoped(serve(listener, carry))
    return (awayMillis: number) =>
      Effect.suspend(() => {
        closed = true
        return Effect.zipRight(control, Effect.sleep(awayMillis))
      }).pipe(Effect.zipRight(Effect.sync(() => (closed = false))))
  })

/** Sends so many questions on one connection, with a pause after each; returns how many were echoed whole. */
const talk = (world: SmallWorld.World, questions: number, pauseMillis: number) =>
  Effect.gen(function* () {
    const connection = yield* world.connect("visitor", visitorsPort)
    for (let n = 0; n < questions; n++) {
      const question = new Uint8Array(700).fill(n + 1)
      yield* connection.write(question)
      for (let back = 0; back < question.length;) {
        const chunk = yield* connection.read
        if (Option.isNone(chunk) || chunk.value.some((byte) => byte !== n + 1)) return n
        back += chunk.value.length
      }
      yield* Effect.sleep(pauseMillis)
    }
    yield* connection.end
    return questions
  }).pipe(
    Effect.scoped,
    Effect.catchAll(() => Effect.succeed(-1))
  )

describe("a control connection that is cut alone", () => {
  it.prop(
    "interrupts no visitor while it is resumed within the grace period each time",
    [
      FastCheck.integer(),
      FastCheck.constantFrom(0, 1, 30),
      // The client resumes before the next cut: it retries every three seconds at least.
      FastCheck.array(
        FastCheck.record({
          afterMillis: FastCheck.integer({ min: 3500, max: 6000 }),
          awayMillis: FastCheck.constantFrom(0, 300, 5000, 20_000)
        }),
        { minLength: 1, maxLength: 5 }
      ),
      FastCheck.array(FastCheck.nat(20_000), { maxLength: 8 })
    ],
    ([seed, latency, cuts, visits]) => {
      const { begun, served, talked } = SmallWorld.run({ seed, link: { latency: Duration.millis(latency) } }, (world) =>
        Effect.gen(function* () {
          const host = yield* Effect.provide(Transport, world.network.host("target"))
          const echo = (connection: Connection) => Effect.ignore(pump(connection, connection))
          yield* Effect.forkScoped(serve(yield* host.listen(target), echo))
          const cut = yield* sever(world)
          const server = yield* world.start("server", serverConfig)
          yield* world.start("client", { ...clientConfig, min: 4, tunnel: middle, targets: [target] })
          yield* server.ready
          const talking = yield* Effect.fork(talk(world, 40, 500))
          const visiting = yield* Effect.forEach(visits, (at) => Effect.fork(Effect.delay(talk(world, 1, 0), at)))
          for (const { afterMillis, awayMillis } of cuts) yield* Effect.delay(cut(awayMillis), afterMillis)
          return {
            talked: yield* talking,
            served: yield* Effect.forEach(visiting, Fiber.join),
            begun: world.log.filter((line) => line === "connected").length
          }
        })
      )
      assert.deepStrictEqual([talked, served, begun], [40, visits.map(() => 1), 1])
    },
    { fastCheck: { numRuns: runs(4, 50) } }
  )
})
