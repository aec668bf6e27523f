import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import { type Connection, serve, Transport, type TransportError } from "../../src/transport/Transport.js"
import { textOf, utf8 } from "../Bytes.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const target = Address.make("target", 81)
const settings = { resumeGrace: Duration.seconds(5), poolGetTimeout: Duration.seconds(10) }

interface World {
  /** Kills all connections between the two sides in silence, except the control connection, which is the oldest. */
  readonly lose: Effect.Effect<unknown>
  readonly visitor: Effect.Effect<Connection, TransportError, Scope.Scope>
  readonly refused: Effect.Effect<Readonly<Record<string, number>>>
  readonly log: ReadonlyArray<string>
}

const echo = (connection: Connection): Effect.Effect<void, TransportError> =>
  Effect.flatMap(
    connection.read,
    Option.match({
      onNone: () => Effect.void,
      onSome: (bytes) => Effect.zipRight(connection.write(bytes), echo(connection))
    })
  )

/** A tunnel with streams in front of an echo server. */
const run = <A, E>(
  receiver: "server" | "client",
  program: (world: World) => Effect.Effect<A, E, Scope.Scope>,
  max = serverConfig.max
): A =>
  SmallWorld.run({ link: { latency: Duration.millis(20) }, settings }, ({ connect, log, network, start }) =>
    Effect.gen(function* () {
      const host = yield* Effect.provide(Transport, network.host("target"))
      yield* Effect.forkScoped(serve(yield* host.listen(target), (connection) => Effect.ignore(echo(connection))))
      const visitors = Address.make(receiver, 8080)
      const [serverTarget, clientTarget] = receiver === "server" ? [visitors, target] : [target, visitors]
      const mode = receiver === "server" ? "receive" : "send"
      const server = yield* start("server", { ...serverConfig, max, mode, targets: [serverTarget] })
      const client = yield* start("client", { ...clientConfig, min: 8, targets: [clientTarget] })
      yield* server.ready
      yield* Effect.sleep("2 seconds")
      const lose = Effect.suspend(() => {
        const first = { seen: false }
        return network.swallow("server", "client", { where: () => first.seen || !(first.seen = true) })
      })
      const { checkpoint } = receiver === "server" ? server : client
      const refused = Effect.map(checkpoint, ({ refused }) => refused)
      return yield* program({ lose, visitor: connect("visitor", visitors), refused, log })
    }).pipe(Effect.scoped)
  )

/** Sends the text: how it was answered within a minute, and in how many seconds. */
const ask = ({ read, write }: Connection, text: string) =>
  Effect.zipRight(write(utf8(text)), read).pipe(
    Effect.map(Option.match({ onNone: () => "end", onSome: textOf })),
    Effect.catchAll(({ reason }) => Effect.succeed<string>(reason)),
    Effect.timeoutTo({ duration: "1 minute", onSuccess: (got) => got, onTimeout: () => "hung" }),
    Effect.timed,
    Effect.map(([took, got]) => ({ got, seconds: Duration.toSeconds(took) }))
  )

describe("carriers that have died in silence, and the idle connections with them", () => {
  it.each([
    ["server", 1024],
    ["client", 1024],
    // The other side does not know that those are dead which fill the pool.
    ["server", 8],
    ["client", 8]
  ] as const)(
    "are attached again within seconds, over a new connection: visitors at the %s, at most %s idle connections",
    (receiver, max) => {
      const program = ({ log, lose, visitor }: World) =>
        Effect.gen(function* () {
          const early = yield* visitor
          const first = yield* ask(early, "first")
          yield* lose
          const asked = Effect.flatMap(visitor, (visitor) => ask(visitor, "new"))
          const [second, newcomers] = yield* Effect.all(
            [ask(early, "second"), Effect.replicateEffect(asked, 6).pipe(Effect.withConcurrency("unbounded"))],
            { concurrency: 2 }
          )
          return { first, second, newcomers, log: [...log] }
        })
      const { first, log, newcomers, second } = run(receiver, program, max)
      assert.strictEqual(first.got, "first")
      for (const { got, seconds } of [second, ...newcomers]) {
        assert.include(["second", "new"], got)
        assert.isAtMost(seconds, 4)
      }
      assert.lengthOf(
        log.filter((line) => line.includes("carried nothing")),
        1
      )
    }
  )

  it.each(["server", "client"] as const)(
    "and so has every later one: visitors are reset after the grace period, and counted: visitors at the %s",
    (receiver) => {
      const { early, late, refused } = run(receiver, ({ lose, refused, visitor }) =>
        Effect.gen(function* () {
          const first = yield* visitor
          assert.strictEqual((yield* ask(first, "first")).got, "first")
          yield* Effect.forkScoped(Effect.forever(Effect.zipRight(lose, Effect.sleep("50 millis"))))
          const [early, late] = yield* Effect.all(
            [ask(first, "second"), Effect.flatMap(visitor, (visitor) => ask(visitor, "third"))],
            { concurrency: 2 }
          )
          return { early, late, refused: yield* refused }
        })
      )
      for (const { got, seconds } of [early, late]) {
        assert.strictEqual(got, "Reset")
        assert.isAtMost(seconds, 14)
      }
      assert.strictEqual(refused["launch"], 2)
    }
  )
})
