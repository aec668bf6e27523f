import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import * as Address from "../../src/core/Address.js"
import * as NodeDial from "../../src/node/socket/NodeDial.js"
import type { Way } from "../../src/node/socket/NodeHosts.js"
import { freePort } from "./command/freePort.js"

const four = (host: string): Way => ({ host, family: 4 })
const six = (host: string): Way => ({ host, family: 6 })

/** The host that a dial ends up at, or why it fails. `hosts` listen at the port, and the name leads to `ways`. */
const dialled = (hosts: ReadonlyArray<string>, ways: ReadonlyArray<Way>) =>
  Effect.gen(function* () {
    const port = yield* Effect.promise(() => freePort())
    for (const host of hosts) {
      const server = yield* Effect.acquireRelease(
        Effect.sync(() => Net.createServer((socket) => socket.on("error", () => undefined)).listen(port, host)),
        (server) => Effect.sync(() => server.close())
      )
      yield* Effect.promise(() => once(server, "listening"))
    }
    const socket = yield* NodeDial.dial(Address.make("name", port), NodeDial.viaNode, {
      lookup: () => Effect.succeed(ways)
    })
    return socket.remoteAddress
  }).pipe(
    Effect.scoped,
    Effect.catchAll(({ reason }) => Effect.succeed(reason))
  )

const hasIpv6 = () =>
  new Promise<boolean>((resolve) => {
    const server = Net.createServer()
      .on("error", () => resolve(false))
      .listen(0, "::1", () => server.close(() => resolve(true)))
  })

describe("NodeDial", async () => {
  const ipv6 = await hasIpv6()

  it.live("the next address is tried at once when one refuses", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* dialled(["127.0.0.3"], [four("127.0.0.1"), four("127.0.0.2"), four("127.0.0.3")]),
        "127.0.0.3"
      )
      assert.strictEqual(yield* dialled([], [four("127.0.0.1"), four("127.0.0.2")]), "Refused")
      assert.strictEqual(yield* dialled([], []), "UnknownHost")
    })
  )

  it.live("the first that the system names is preferred", () =>
    Effect.gen(function* () {
      const both = ["127.0.0.1", "127.0.0.2"]
      assert.strictEqual(yield* dialled(both, both.map(four)), "127.0.0.1")
      assert.strictEqual(yield* dialled(both, both.toReversed().map(four)), "127.0.0.2")
    })
  )

  it.skipIf(!ipv6)("either family will do", async () => {
    const ways = [six("::1"), four("127.0.0.1")]
    assert.strictEqual(await Effect.runPromise(dialled(["127.0.0.1"], ways)), "127.0.0.1")
    assert.strictEqual(await Effect.runPromise(dialled(["::1"], ways.toReversed())), "::1")
  })

  it.skipIf(process.platform !== "linux")(
    "an address that does not answer holds up the next one for a moment only",
    async () => {
      const port = await freePort()
      const program = `require("net").createServer().listen({ port: ${port}, host: "127.0.0.5", backlog: 1 }, () => console.log())`
      const silent = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "ignore"] })
      const fillers: Array<Net.Socket> = []
      try {
        await once(silent.stdout, "data")
        silent.kill("SIGSTOP")
        // Who comes when the queue of a stopped process is full gets no answer at all.
        for (let filler = 0; filler < 2; filler++) {
          const socket = Net.connect(port, "127.0.0.5").on("error", () => undefined)
          fillers.push(socket)
          await once(socket, "connect")
        }
        const dial = (...ways: ReadonlyArray<Way>) =>
          NodeDial.dial(Address.make("name", port), NodeDial.viaNode, { lookup: () => Effect.succeed(ways) })
        const alone = Effect.timeoutOption(dial(four("127.0.0.5")), "300 millis")
        assert.strictEqual((await Effect.runPromise(Effect.scoped(alone)))._tag, "None")
        const server = Net.createServer((socket) => socket.destroy()).listen(port, "127.0.0.6")
        await once(server, "listening")
        const [took] = await Effect.runPromise(Effect.scoped(Effect.timed(dial(four("127.0.0.5"), four("127.0.0.6")))))
        server.close()
        assert.isBelow(Duration.toMillis(took), 5000)
      } finally {
        for (const socket of fillers) socket.destroy()
        silent.kill("SIGKILL")
      }
    }
  )
})
