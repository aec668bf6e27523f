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

/** One visit to a target of its own; what the visitor got, in how many round trips, and what each connection of the target got. */
const visit = ({ dead, greeting, latency, question, receiver, thinkingMillis }: Visit) =>
  SmallWorld.run({ link: { latency: Duration.millis(latency) } }, ({ connect, network, start }) =>
    Effect.gen(function* () {
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
      const visitors = Address.make(receiver, 8080)
      const server = yield* start("server", {
        ...serverConfig,
        mode: receiver === "server" ? "receive" : "send",
        targets: [receiver === "server" ? visitors : target]
      })
      yield* start("client", { ...clientConfig, min: 3, targets: [receiver === "client" ? visitors : target] })
      yield* server.ready
      yield* Effect.sleep("5 seconds")
      const first = { seen: false }
      // All except the control connection, which is the oldest.
      if (dead) yield* network.swallow("server", "client", { where: () => first.seen || !(first.seen = true) })

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
})
