import { assert, describe, it } from "@effect/vitest"
import * as Net from "node:net"
import process from "node:process"
import { answering, ask, makeWorld, tunnelKey, type World } from "./command/Nodepass.js"

const garbage = "GET /some/garbage HTTP/1.1\n"

/** Opens one connection after the other from these addresses, a few at a time, until it is stopped; how each ended. */
const flood = (world: World, port: number, hosts: Iterator<string>) => {
  const fates = new Map<string, number>()
  let isOver = false
  const next = (): void => {
    const { done, value } = hosts.next()
    if (isOver || done === true) return
    const socket = Net.connect({ host: "127.0.0.1", port, localAddress: value })
    let fate = "end"
    socket
      .on("error", (error) => (fate = "code" in error ? String(error.code) : error.message))
      .on("data", () => (fate = "data"))
      .on("close", () => {
        fates.set(fate, (fates.get(fate) ?? 0) + 1)
        next()
      })
      .end(garbage)
  }
  const stop = world.own(
    () => (isOver = true),
    (stop) => stop()
  )
  for (let count = 0; count < 32; count++) next()
  return { fates, stop }
}

/** Other addresses each time, from the first one on. */
const manyHosts = function* (from: number) {
  for (let count = from; ; count++) yield `127.${1 + (count >> 16)}.${(count >> 8) & 255}.${count & 255}`
}
const oneHost = function* () {
  for (let count = 0; count < 400; count++) yield "127.9.9.9"
}

// Only Linux has all of 127.0.0.0/8.
describe.skipIf(process.platform !== "linux")("a flood of garbage on the tunnel port", () => {
  it("keeps no client out and stops no visitor, and each of the flood is reset or ended without a byte", async () => {
    const world = makeWorld()
    try {
      const { port: target } = await world.listen(answering)
      const [tunnelPort, port] = [await world.freePort(), await world.freePort()]
      const server = world.start([`server://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1`])
      await server.line(/waiting for a client/)
      const floods = [flood(world, tunnelPort, manyHosts(1)), flood(world, tunnelPort, oneHost())]
      const client = world.start([`client://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2`])
      await client.line(/ connected /)
      for (let count = 0; count < 20; count++) {
        assert.strictEqual(String(await ask(world, port, `${count}`)), `re:${count}`)
      }
      // The one address fails more often than an address may.
      await server.line(/WARN .*one address has too many unauthenticated peers.* refused=dropped/)
      for (const { fates, stop } of floods) {
        stop()
        assert.notInclude([...fates.keys()], "data")
      }
      assert.isAtMost(server.log().match(/WARN .* refused=dropped/g)?.length ?? 0, 2)
      assert.isAtMost(server.log().match(/WARN .* refused=handshake/g)?.length ?? 0, 4)
      assert.notMatch(client.log(), /WARN .*keys differ/)
    } finally {
      await world.close()
    }
  })
})
