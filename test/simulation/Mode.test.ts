import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Address from "../../src/core/Address.js"
import { Transport } from "../../src/transport/Transport.js"
import * as SmallWorld from "./worlds/SmallWorld.js"
import { clientConfig, serverConfig } from "./worlds/SmallWorld.js"

/** The warnings of a server and a client with `mode=0`, on whose hosts these ports are in use. */
const warnings = (taken: { readonly server?: number; readonly client?: number }, targetHost: "client" | "server") =>
  SmallWorld.run({}, ({ log, network, start }) =>
    Effect.gen(function* () {
      for (const [host, port] of Object.entries(taken)) {
        const transport = yield* Effect.provide(Transport, network.host(host))
        yield* transport.listen(Address.make(host, port))
      }
      const target = Address.make(targetHost, 8080)
      yield* start("server", { ...serverConfig, mode: "auto" })
      yield* start("client", { ...clientConfig, min: 1, mode: "auto", targets: [target] })
      yield* Effect.sleep("5 seconds")
      return log.filter((line) => line.includes("is in use")).map((line) => line.split(":")[0])
    })
  )

describe("mode=0", () => {
  it("warns on both sides, with the port, when the port of the service is in use where it listens", () => {
    const [server, client] = warnings({ server: 8080, client: 8080 }, "client")
    assert.strictEqual(server, "port 8080 is in use, so that mode=0 makes this server send")
    assert.include(client, "port 8080 is in use, but the server sends")
  })

  it("warns of nothing when the port is free", () => {
    assert.deepStrictEqual(warnings({}, "client"), [])
  })
})
