import { randomInt } from "node:crypto"
import { once } from "node:events"
import * as Net from "node:net"

/**
 * A free loopback port, for a program that needs a number.
 *
 * It is below the ports that systems give to outgoing connections: one of those would be taken by the next visitor
 * of another test before the program opens it.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(10_000, 32_000)
    const server = Net.createServer()
    const free = new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true))
    })
    if (await free) {
      server.close()
      await once(server, "close")
      return port
    }
  }
}
