import { assert, describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as v8 from "node:v8"
import * as Address from "../../src/core/Address.js"
import * as Transport from "../../src/transport/Transport.js"
import { isLong } from "../Runs.js"
import { it } from "../Simulated.js"
import * as DatagramVisit from "./worlds/DatagramVisit.js"
import * as TunnelHost from "./worlds/TunnelHost.js"

/** In each round, of each tunnel. */
const visitors = 60
const target = Address.make("target", 80)

/** A question over TCP, and one over UDP. */
const visit = (server: string) =>
  Effect.zipRight(visitTcp(Address.make(server, 8080)), visitUdp(Address.make(server, 8080)))

const visitUdp = (address: Address.Address) =>
  DatagramVisit.visit(address, 1, { arrivesMillis: 0, sizes: [3], gapMillis: 0 }).pipe(
    Effect.tap(({ answered }) => Effect.sync(() => assert.strictEqual(answered, 1)))
  )

const visitTcp = (address: Address.Address) =>
  Effect.scoped(
    Effect.gen(function* () {
      const transport = yield* Transport.Transport
      const connection = yield* transport.connect(address)
      yield* connection.write(new Uint8Array(3))
      yield* connection.end
      assert.deepStrictEqual(yield* connection.read, Option.some(new Uint8Array(3)))
      assert.isTrue(Option.isNone(yield* connection.read))
    })
  )

/** Answers with the first chunk. */
const echo = Effect.flatMap(Transport.Transport, (transport) =>
  Effect.flatMap(transport.listen(target), (listener) =>
    Effect.forkScoped(
      Transport.serve(listener, (connection) =>
        Effect.gen(function* () {
          const chunk = yield* connection.read
          if (Option.isSome(chunk)) yield* connection.write(chunk.value)
          yield* connection.end
        }).pipe(Effect.ignore)
      )
    )
  )
)

describe("memory of a tunnel", () => {
  it.simulated("nothing is kept of visitors who left, without TLS and with it", {}, ({ network, seed }) =>
    Effect.gen(function* () {
      yield* Effect.provide(echo, network.host("target"))
      yield* Effect.forkScoped(Effect.provide(DatagramVisit.serve(target, new Map()), network.host("target")))
      const servers = isLong ? ["plain", "secure"] : [seed % 2 === 0 ? "plain" : "secure"]
      for (const server of servers) {
        const start = (role: "server" | "client", rest: string) =>
          TunnelHost.start({ transport: network.host(server), seed, text: `${role}://${server}:10101/${rest}` })
        yield* start("server", `${server}:8080?mode=1&tls=${server === "secure" ? 1 : 0}`)
        yield* (yield* start("client", "target:80?mode=2")).ready
      }
      const countAfterVisits = Effect.gen(function* () {
        for (const server of servers) {
          yield* Effect.replicateEffect(visit(server), visitors, { concurrency: 8, discard: true })
        }
        // Every UDP session has ended, and the pools have as many connections as without visitors.
        yield* Effect.sleep("1 minute")
        return v8.queryObjects(Object, { format: "count" })
      }).pipe(Effect.provide(network.host("visitor")))
      const before = yield* countAfterVisits
      const after = yield* countAfterVisits
      assert.isBelow(after - before, visitors)
    })
  )
})
