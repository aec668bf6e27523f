/**
 * The `Bye` of a side that stops.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as SmallWorld from "./worlds/SmallWorld.js"

const seconds = (count: number) => Effect.sleep(Duration.seconds(count))

describe("a side that stops", () => {
  it.each(["server", "client"] as const)(
    "the %s ends the session for its peer, also on a later control connection",
    (side) => {
      const lines = SmallWorld.run({ link: { latency: 10 } }, ({ log, network, start }) =>
        Effect.gen(function* () {
          const scopes = { server: yield* Scope.make(), client: yield* Scope.make() }
          yield* Scope.extend(start("server", SmallWorld.serverConfig), scopes.server)
          yield* Scope.extend(start("client", SmallWorld.clientConfig), scopes.client)
          yield* seconds(3)
          assert.strictEqual(yield* network.cut("client", "server", { limit: 1 }), 1)
          yield* seconds(3)
          assert.include(log, "connected again")
          const before = log.length
          yield* Scope.close(scopes[side], Exit.void)
          yield* seconds(1)
          const lines = log.slice(before)
          yield* Effect.forEach([scopes.client, scopes.server], (scope) => Scope.close(scope, Exit.void))
          return lines
        })
      )
      assert.include(lines.join("\n"), "the peer ended the session")
    }
  )

  it.each(["server", "client"] as const)(
    "the %s waits for its peer to close the control connection, but not for a dead one",
    (side) => {
      const took = (dead: boolean) =>
        SmallWorld.run({ link: { latency: 100 } }, ({ network, start }) =>
          Effect.gen(function* () {
            const scopes = { server: yield* Scope.make(), client: yield* Scope.make() }
            yield* Scope.extend(start("server", SmallWorld.serverConfig), scopes.server)
            yield* Scope.extend(start("client", { ...SmallWorld.clientConfig, min: 1 }), scopes.client)
            yield* seconds(5)
            if (dead) yield* network.swallow("client", "server")
            const [took] = yield* Effect.timed(Scope.close(scopes[side], Exit.void))
            yield* Effect.forEach([scopes.client, scopes.server], (scope) => Scope.close(scope, Exit.void))
            return Duration.toMillis(took)
          })
        )
      const [alive, dead] = [took(false), took(true)]
      // There and back.
      assert.isTrue(alive >= 200 && alive < 1000, `${alive} ms`)
      assert.isBelow(dead, 1500)
    }
  )
})
