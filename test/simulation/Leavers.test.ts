import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Address from "../../src/core/Address.js"
import { serve, Transport } from "../../src/transport/Transport.js"
import { readAll, textOf, utf8 } from "../Bytes.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const target = Address.make("target", 81)

/** Visitors who come one after the other while the other side is away, to a side with two slots: what they and the target got. */
const leave = (receiver: "server" | "client") =>
  SmallWorld.run({ link: { latency: 10 } }, ({ connect, network, start }) =>
    Effect.gen(function* () {
      const questions: Array<string> = []
      const host = yield* Effect.provide(Transport, network.host("target"))
      yield* Effect.forkScoped(
        serve(yield* host.listen(target), (connection) =>
          Effect.gen(function* () {
            const question = Option.match(yield* connection.read, { onNone: () => "", onSome: textOf })
            questions.push(question)
            yield* connection.write(utf8(`re:${question}`))
            yield* connection.end
          }).pipe(Effect.ignore)
        )
      )
      const visitors = Address.make(receiver, 8080)
      const startServer = start("server", {
        ...serverConfig,
        slot: 2,
        mode: receiver === "server" ? "receive" : "send",
        targets: [receiver === "server" ? visitors : target]
      })
      const startClient = start("client", {
        ...clientConfig,
        slot: 2,
        min: 2,
        targets: [receiver === "client" ? visitors : target]
      })
      yield* startServer
      const client = receiver === "client" ? yield* startClient : undefined
      // The client opens the visitors' port once it was told to.
      if (client !== undefined) yield* client.ready
      if (client !== undefined) yield* network.partition("server", "client")
      if (client !== undefined) yield* Effect.sleep("14 seconds")

      const visit = (text: string, then: "reset" | "end" | "wait") =>
        Effect.gen(function* () {
          const connection = yield* connect("visitor", visitors)
          if (text !== "") yield* connection.write(utf8(text))
          if (then === "reset") yield* Effect.delay(connection.reset, "300 millis")
          else if (then === "end") yield* connection.end
          return yield* Effect.match(readAll(connection), { onFailure: () => "reset", onSuccess: textOf })
        }).pipe(Effect.scoped)
      const come = Effect.fnUntraced(function* (text: string, then: "reset" | "end" | "wait") {
        const visiting = yield* Effect.fork(visit(text, then))
        yield* Effect.sleep("1 second")
        return visiting
      })
      const visiting = [
        yield* come("", "reset"),
        yield* come("sent", "reset"),
        yield* come("", "end"),
        yield* come("question", "end"),
        yield* come("again", "wait")
      ]
      if (client === undefined) yield* startClient
      else yield* network.heal("server", "client")
      return { answers: yield* Effect.forEach(visiting, Fiber.join), questions: questions.toSorted() }
    }).pipe(Effect.scoped)
  )

describe("visitors who left while the other side is away", () => {
  it.each(["server", "client"] as const)(
    "free their slots at once and reach no target, except one that has sent something and ended: visitors at the %s",
    (receiver) => {
      const { answers, questions } = leave(receiver)
      assert.deepStrictEqual(answers, ["reset", "reset", "reset", "re:question", "re:again"])
      assert.deepStrictEqual(questions, ["again", "question"])
    }
  )
})
