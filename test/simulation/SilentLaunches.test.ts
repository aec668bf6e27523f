import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import { type Connection, serve, Transport } from "../../src/transport/Transport.js"
import { readAll, textOf, utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const target = Address.make("target", 81)

interface Visit {
  readonly latency: number
  readonly receiver: "server" | "client"
  /** What the target sends before it has read anything. */
  readonly greeting: string
  readonly question: string
  /** How long the target takes to answer a question. */
  readonly thinkingMillis: number
  /** Whether the pool connections die in silence before the visit. */
  readonly dead: boolean
}

/** A tunnel with idle pool connections, which `lose` kills in silence: all except the control connection, which is the oldest. */
const open = ({ network, start }: SmallWorld.World, receiver: "server" | "client") =>
  Effect.gen(function* () {
    const visitors = Address.make(receiver, 8080)
    const server = yield* start("server", {
      ...serverConfig,
      streams: false,
      mode: receiver === "server" ? "receive" : "send",
      targets: [receiver === "server" ? visitors : target]
    })
    const client = yield* start("client", {
      ...clientConfig,
      min: 3,
      targets: [receiver === "client" ? visitors : target]
    })
    yield* server.ready
    yield* Effect.sleep("5 seconds")
    const first = { seen: false }
    const lose = network.swallow("server", "client", { where: () => first.seen || !(first.seen = true) })
    return { lose, tunnels: { server, client }, visitors }
  })

/** One visit to a target of its own; what the visitor got, in how many round trips, and what each connection of the target got. */
const visit = ({ dead, greeting, latency, question, receiver, thinkingMillis }: Visit) =>
  SmallWorld.run({ link: { latency: Duration.millis(latency) } }, (world) =>
    Effect.gen(function* () {
      const { connect, network } = world
      const questions: Array<string> = []
      const answer = (connection: Connection) =>
        Effect.gen(function* () {
          if (greeting !== "") yield* connection.write(utf8(greeting))
          const question = textOf(yield* readAll(connection))
          questions.push(question)
          yield* Effect.sleep(thinkingMillis)
          yield* connection.write(utf8(`re:${question}`))
          yield* connection.end
        }).pipe(Effect.ignore)
      const host = yield* Effect.provide(Transport, network.host("target"))
      yield* Effect.forkScoped(serve(yield* host.listen(target), answer))
      const { lose, visitors } = yield* open(world, receiver)
      if (dead) yield* lose

      const [took, got] = yield* Effect.timed(
        Effect.gen(function* () {
          const connection = yield* connect("visitor", visitors)
          const greeted = greeting === "" ? Option.none() : yield* connection.read
          yield* connection.write(utf8(question))
          yield* connection.end
          const answer = textOf(yield* readAll(connection))
          return Option.match(greeted, { onNone: () => answer, onSome: (bytes) => `${textOf(bytes)} ${answer}` })
        }).pipe(Effect.timeoutTo({ duration: "1 minute", onSuccess: (got) => got, onTimeout: () => "hung" }))
      )
      return { got, questions, roundTrips: (Duration.toMillis(took) - thinkingMillis) / (2 * latency) }
    }).pipe(Effect.scoped)
  )

const visits = FastCheck.record({
  latency: FastCheck.constantFrom(25, 50, 150),
  receiver: FastCheck.constantFrom("server" as const, "client" as const),
  greeting: FastCheck.constantFrom("", "welcome"),
  question: FastCheck.constantFrom("", "question"),
  thinkingMillis: FastCheck.constantFrom(0, 5000)
})
const numRuns = runs(6, 60)
const expected = ({ greeting, question }: Pick<Visit, "greeting" | "question">) =>
  greeting === "" ? `re:${question}` : `${greeting} re:${question}`

interface Datagrams {
  readonly latency: number
  readonly receiver: "server" | "client"
  /** When the visitor sends each datagram. */
  readonly atMillis: ReadonlyArray<number>
  readonly answers: boolean
  readonly dead: boolean
}

/** A UDP visitor who sends each datagram once: what the target got, and what the visitor got. */
const visitByDatagrams = ({ answers, atMillis, dead, latency, receiver }: Datagrams) =>
  SmallWorld.run({ link: { latency: Duration.millis(latency) } }, (world) =>
    Effect.gen(function* () {
      const { network } = world
      const arrived: Array<string> = []
      const answered: Array<string> = []
      const port = yield* (yield* Effect.provide(Transport, network.host("target"))).bind(target)
      yield* Effect.forkScoped(
        Effect.forever(
          Effect.flatMap(port.receive, (datagrams) => {
            arrived.push(...datagrams.map(({ bytes }) => textOf(bytes)))
            return answers ? port.send(datagrams) : Effect.void
          })
        )
      )
      const { lose, visitors } = yield* open(world, receiver)
      const socket = yield* (yield* Effect.provide(Transport, network.host("visitor"))).associate(visitors)
      yield* Effect.forkScoped(
        Effect.forever(
          Effect.map(socket.receive, (datagrams) => answered.push(...datagrams.map(({ bytes }) => textOf(bytes))))
        )
      )
      if (dead) yield* lose
      yield* Effect.forEach(
        atMillis,
        (millis, number) =>
          Effect.delay(socket.send([{ peer: visitors, bytes: utf8(String(number)) }]), Duration.millis(millis)),
        { concurrency: "unbounded", discard: true }
      )
      yield* Effect.sleep("10 seconds")
      return { arrived, answered }
    }).pipe(Effect.scoped)
  )

/** How long a visitor hangs whose pool connection is dead, and whose target refuses, or resets what it has accepted. */
const refuse = (how: "refuses" | "resets", receiver: "server" | "client") =>
  SmallWorld.run({ link: { latency: Duration.millis(20) } }, (world) =>
    Effect.gen(function* () {
      const { connect, network } = world
      const host = yield* Effect.provide(Transport, network.host("target"))
      if (how === "resets") {
        yield* Effect.forkScoped(serve(yield* host.listen(target), ({ reset }) => Effect.delay(reset, "200 millis")))
      }
      const { lose, visitors } = yield* open(world, receiver)
      yield* lose
      const [took, got] = yield* Effect.timed(
        Effect.gen(function* () {
          // It sends nothing: a launch that the target has refused is not tried again.
          return yield* Effect.flip((yield* connect("visitor", visitors)).read)
        }).pipe(
          Effect.scoped,
          Effect.timeoutTo({ duration: "5 minutes", onSuccess: ({ reason }) => reason, onTimeout: () => "hung" })
        )
      )
      return { got, seconds: Duration.toSeconds(took) }
    }).pipe(Effect.scoped)
  )

describe("a launch whose pool connection died in silence", () => {
  it.prop(
    "is tried again on another one within a few round trips, and reaches the target once",
    [visits],
    ([drawn]) => {
      const { got, questions, roundTrips } = visit({ ...drawn, dead: true })
      assert.strictEqual(got, expected(drawn))
      // What was undone has brought the target nothing.
      assert.deepStrictEqual(questions.filter((text) => text !== "" || drawn.question === "").slice(-1), [
        drawn.question
      ])
      assert.isAtMost(questions.filter((text) => text !== "").length, 1)
      // It asks again after a round trip, and after 100 ms at the earliest.
      const [trips, questionsAsked] = drawn.greeting === "" ? [14, 2] : [40, 8]
      assert.isAtMost(roundTrips, trips + (questionsAsked * 100) / (2 * drawn.latency))
    },
    { fastCheck: { numRuns } }
  )

  it.prop(
    "is left alone on a connection that is alive, however long the target takes",
    [visits],
    ([drawn]) => {
      const { got, questions } = visit({ ...drawn, dead: false })
      assert.deepStrictEqual([got, questions], [expected(drawn), [drawn.question]])
    },
    { fastCheck: { numRuns } }
  )

  it.prop(
    "of a UDP visitor is tried again as well: each datagram arrives once",
    [
      FastCheck.record({
        latency: FastCheck.constantFrom(25, 50, 150),
        receiver: FastCheck.constantFrom("server" as const, "client" as const),
        atMillis: FastCheck.array(FastCheck.nat(3000), { minLength: 1, maxLength: 6 }),
        answers: FastCheck.boolean(),
        dead: FastCheck.boolean()
      })
    ],
    ([drawn]) => {
      const { answered, arrived } = visitByDatagrams(drawn)
      const expected = drawn.atMillis.map((_, number) => String(number))
      assert.deepStrictEqual(arrived.toSorted(), expected)
      assert.deepStrictEqual(answered.toSorted(), drawn.answers ? expected : [])
    },
    { fastCheck: { numRuns } }
  )

  it.each(
    (["server", "client"] as const).flatMap((receiver) =>
      (["refuses", "resets"] as const).map((how) => [how, receiver] as const)
    )
  )("leaves no visitor hanging when the target %s it: visitors at the %s", (how, receiver) => {
    const { got, seconds } = refuse(how, receiver)
    assert.strictEqual(got, "Reset")
    assert.isAtMost(seconds, 5)
  })

  it.each(["server", "client"] as const)(
    "that has lost more than is kept of its visitor resets it, and is counted: visitors at the %s",
    (receiver) => {
      const [got, refused] = SmallWorld.run({ link: { latency: Duration.millis(20) } }, (world) =>
        Effect.gen(function* () {
          const host = yield* Effect.provide(Transport, world.network.host("target"))
          yield* Effect.forkScoped(serve(yield* host.listen(target), ({ read }) => Effect.ignore(read)))
          const { lose, tunnels, visitors } = yield* open(world, receiver)
          yield* lose
          const connection = yield* world.connect("visitor", visitors)
          yield* Effect.forkScoped(Effect.ignore(connection.write(new Uint8Array(20_000))))
          const got = yield* Effect.timeoutTo(Effect.flip(connection.read), {
            duration: "1 minute",
            onSuccess: ({ reason }) => reason,
            onTimeout: () => "hung"
          })
          return [got, (yield* tunnels[receiver].checkpoint).refused["launch"]] as const
        }).pipe(Effect.scoped)
      )
      assert.deepStrictEqual([got, refused], ["Reset", 1])
    }
  )
})
