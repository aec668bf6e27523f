import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Address from "../src/Address.js"
import * as NodeTransport from "../src/node/NodeTransport.js"
import { Transport } from "../src/Transport.js"
import { suite, type World } from "./Transport.compliance.js"

const handles = () => process.getActiveResourcesInfo().filter((name) => /^TCP/.test(name)).length

/** Node forgets a closed handle right after the immediates of the turn that closed it. */
const turn = Effect.async<void>((resume) => {
  setImmediate(() => setImmediate(() => resume(Effect.void)))
})

const run: World["run"] = (program) =>
  program.pipe(
    Effect.scoped,
    Effect.provide(NodeTransport.layer),
    Effect.orDie,
    Effect.zipRight(turn),
    Effect.zipRight(Effect.sync(() => assert.strictEqual(handles(), 0)))
  )

suite("NodeTransport", { run, flood: { chunks: 1000, bytes: 65_536, limit: 32 * 1024 * 1024 } })

describe("NodeTransport", () => {
  it.live("an IPv4 visitor of a listener on every interface is shown with its IPv4 address", () =>
    run(
      Effect.gen(function* () {
        const transport = yield* Transport
        for (const host of ["", "*", "0.0.0.0"]) {
          const listener = yield* transport.listen(Address.make(host, 0))
          const client = yield* transport.connect(Address.make("127.0.0.1", listener.address.port))
          const server = yield* listener.accept
          assert.strictEqual(server.remote.host, "127.0.0.1")
          assert.strictEqual(server.local.host, "127.0.0.1")
          assert.strictEqual(server.remote.port, client.local.port)
        }
      })
    )
  )
})
