import { assert, describe, it } from "@effect/vitest"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Address from "../../src/core/Address.js"
import { serve, Transport } from "../../src/transport/Transport.js"
import { readAll, textOf, utf8 } from "../Bytes.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

const target = Address.make("target", 81)

describe("the side that visitors connect to", () => {
  it.each(["server", "client"] as const)(
    "knows whether the other side reaches a target, and learns no address of it: visitors at the %s",
    (receiver) => {
      const seen = SmallWorld.run({ link: { latency: 10 } }, ({ connect, network, start }) =>
        Effect.gen(function* () {
          const visitors = Address.make(receiver, 8080)
          const server = yield* start("server", {
            ...serverConfig,
            mode: receiver === "server" ? "receive" : "send",
            targets: [receiver === "server" ? visitors : target]
          })
          const client = yield* start("client", {
            ...clientConfig,
            min: 2,
            targets: [receiver === "client" ? visitors : target]
          })
          yield* client.ready
          yield* Effect.sleep("2 seconds")
          const here = receiver === "server" ? server : client
          let changes = 0
          here.watch(() => changes++)
          const ask = Effect.gen(function* () {
            const connection = yield* connect("visitor", visitors)
            yield* connection.write(utf8("hi"))
            yield* connection.end
            return textOf(yield* readAll(connection))
          }).pipe(
            Effect.scoped,
            Effect.catchAll(() => Effect.succeed("reset"))
          )
          const standing = Effect.map(here.checkpoint, ({ reason, status }) => `${status} ${reason}`)
          const seen: Array<string> = []
          const visitAndLook = (pause: Duration.DurationInput) =>
            Effect.gen(function* () {
              seen.push(yield* ask)
              yield* Effect.sleep(pause)
              seen.push(yield* standing)
            })
          seen.push(yield* standing)
          yield* visitAndLook("1 second")
          // Nobody has tried the target again.
          yield* Effect.sleep("31 seconds")
          seen.push(yield* standing)
          yield* visitAndLook("1 second")
          const host = yield* Effect.provide(Transport, network.host("target"))
          const listener = yield* host.listen(target)
          yield* Effect.forkScoped(
            serve(listener, (connection) =>
              Effect.ignore(
                Effect.zipRight(readAll(connection), Effect.zipRight(connection.write(utf8("yes")), connection.end))
              )
            )
          )
          yield* visitAndLook("1 second")
          return { seen, changes }
        }).pipe(Effect.scoped)
      )
      const peer = receiver === "server" ? "client" : "server"
      const waiting = `waiting the ${peer} reaches no target: connection refused`
      assert.deepStrictEqual(seen, {
        seen: ["serving ", "reset", waiting, "serving ", "reset", waiting, "yes", "serving "],
        // Refused, and served again: that a failure is forgotten is no event.
        changes: 2
      })
    }
  )
})
