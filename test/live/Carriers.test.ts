import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { once } from "node:events"
import type * as Net from "node:net"
import * as CuttingProxy from "./command/CuttingProxy.js"
import { echoing, makeWorld, tunnel, type World } from "./command/Nodepass.js"

let world: World
beforeAll(() => {
  world = makeWorld()
})
afterAll(() => world.close())

describe("a cut", () => {
  it.each([
    ["pool", "server", ""],
    ["pool", "client", "&tls=1"],
    ["all", "server", ""]
  ] as const)(
    "of connections (%s) leaves a visitor on a carrier all its bytes, visitors at the %s%s",
    async (...given) => {
      const [what, receiver, serverQuery] = given
      const { port: target } = await world.listen(echoing)
      const { cut, through } = CuttingProxy.make(world, what)
      const { client, port, server } = await tunnel(world, {
        target,
        receiver,
        serverQuery,
        clientQuery: "&min=2",
        through
      })
      /** Sends the bytes and checks that all of them return. */
      const echo = async (visitor: Net.Socket, bytes: Buffer) => {
        visitor.write(bytes)
        const back: Array<Buffer> = []
        while (back.reduce((sum, { length }) => sum + length, 0) < bytes.length) {
          const [chunk] = await once(visitor, "data")
          back.push(chunk)
        }
        assert.isTrue(Buffer.concat(back).equals(bytes))
      }
      /** A visitor on a carrier: the first ones may come before there is one, and have a pool connection of their own. */
      const survivor = async (): Promise<Net.Socket> => {
        const visitor = world.connect(port)
        try {
          await echo(visitor, Buffer.from("first"))
          await cut()
          await echo(visitor, Buffer.from("second"))
          return visitor
        } catch {
          return survivor()
        }
      }
      const visitor = await survivor()
      for (let round = 0; round < (what === "all" ? 3 : 10); round++) {
        const cutting = cut()
        // Too little in a second for a connection of its own.
        await echo(visitor, Buffer.alloc(4096, `round ${round} `))
        await cutting
      }
      for (const { log } of what === "all" ? [] : [server, client])
        assert.notMatch(log(), /connection lost|client lost/)
    }
  )
})
