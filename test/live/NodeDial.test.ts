import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import * as Address from "../../src/core/Address.js"
import * as Lag from "../Lag.js"
import * as NodeDial from "../../src/node/socket/NodeDial.js"
import type { IpAddress } from "../../src/node/socket/NodeHosts.js"
import * as Resolver from "../../src/node/socket/Resolver.js"
import { freePort } from "./command/freePort.js"

const ipv4 = (host: string): IpAddress => ({ host, family: 4 })
const ipv6 = (host: string): IpAddress => ({ host, family: 6 })

/** The host that a dial connects to, or why it fails. `hosts` listen at the port, and the name resolves to `addresses`. */
const dial = (hosts: ReadonlyArray<string>, addresses: ReadonlyArray<IpAddress>) =>
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
      resolver: Resolver.make({ lookup: (_, done) => done(null, addresses) })
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
  const isIpv6Available = await hasIpv6()

  it.live("when an address refuses, the next one is tried at once", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* dial(["127.0.0.3"], [ipv4("127.0.0.1"), ipv4("127.0.0.2"), ipv4("127.0.0.3")]),
        "127.0.0.3"
      )
      assert.strictEqual(yield* dial([], [ipv4("127.0.0.1"), ipv4("127.0.0.2")]), "Refused")
      assert.strictEqual(yield* dial([], []), "UnknownHost")
    })
  )

  it.live("the first address of the resolver is preferred", () =>
    Effect.gen(function* () {
      const both = ["127.0.0.1", "127.0.0.2"]
      assert.strictEqual(yield* dial(both, both.map(ipv4)), "127.0.0.1")
      assert.strictEqual(yield* dial(both, both.toReversed().map(ipv4)), "127.0.0.2")
    })
  )

  it.live("when the cached addresses fail, the name is looked up at once and its other addresses are tried", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(() => freePort())
      const server = yield* Effect.acquireRelease(
        Effect.sync(() => Net.createServer((socket) => socket.on("error", () => undefined)).listen(port, "127.0.0.2")),
        (server) => Effect.sync(() => server.close())
      )
      yield* Effect.promise(() => once(server, "listening"))
      let now = 0
      let addresses = [ipv4("127.0.0.3")]
      let lookups = 0
      const resolver = Resolver.make({
        now: () => now,
        lookup: (_, done) => {
          lookups++
          done(null, addresses)
        }
      })
      const connect = Effect.scoped(
        Effect.match(NodeDial.dial(Address.make("name", port), NodeDial.viaNode, { resolver }), {
          onFailure: ({ reason }) => reason,
          onSuccess: ({ remoteAddress }) => remoteAddress
        })
      )
      assert.strictEqual(yield* connect, "Refused")
      addresses = [ipv4("127.0.0.2")]
      // A name that was looked up within the last second is not looked up again.
      assert.strictEqual(yield* connect, "Refused")
      assert.strictEqual(lookups, 1)
      now += 2000
      assert.strictEqual(yield* connect, "127.0.0.2")
      assert.strictEqual(yield* connect, "127.0.0.2")
      assert.strictEqual(lookups, 2)
    }).pipe(Effect.scoped)
  )

  it.skipIf(!isIpv6Available)("when the addresses of one family refuse, those of the other are tried", async () => {
    const addresses = [ipv6("::1"), ipv4("127.0.0.1")]
    assert.strictEqual(await Effect.runPromise(dial(["127.0.0.1"], addresses)), "127.0.0.1")
    assert.strictEqual(await Effect.runPromise(dial(["::1"], addresses.toReversed())), "::1")
  })

  it.skipIf(process.platform !== "linux")(
    "when an address does not answer, the next one is tried after a short delay",
    async () => {
      const port = await freePort()
      const program = `require("net").createServer().listen({ port: ${port}, host: "127.0.0.5", backlog: 1 }, () => console.log())`
      const stopped = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "ignore"] })
      const fillers: Array<Net.Socket> = []
      try {
        await once(stopped.stdout, "data")
        stopped.kill("SIGSTOP")
        // The backlog of a stopped process is full now: further connections get no answer.
        for (let filler = 0; filler < 2; filler++) {
          const socket = Net.connect(port, "127.0.0.5").on("error", () => undefined)
          fillers.push(socket)
          await once(socket, "connect")
        }
        const dialNow = (...addresses: ReadonlyArray<IpAddress>) =>
          NodeDial.dial(Address.make("name", port), NodeDial.viaNode, {
            resolver: Resolver.make({ lookup: (_, done) => done(null, addresses) })
          })
        const alone = Effect.timeoutOption(dialNow(ipv4("127.0.0.5")), "300 millis")
        assert.strictEqual((await Effect.runPromise(Effect.scoped(alone)))._tag, "None")
        const server = Net.createServer((socket) => socket.destroy()).listen(port, "127.0.0.6")
        await once(server, "listening")
        await Lag.within(5000, async () => {
          const both = dialNow(ipv4("127.0.0.5"), ipv4("127.0.0.6"))
          const [took] = await Effect.runPromise(Effect.scoped(Effect.timed(both)))
          return Duration.toMillis(took)
        })
        server.close()
      } finally {
        for (const socket of fillers) socket.destroy()
        stopped.kill("SIGKILL")
      }
    }
  )
})
