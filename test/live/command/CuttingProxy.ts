/**
 * A proxy in front of the tunnel port that can cut connections: the control connection, those of the pool, or all.
 */
import * as Net from "node:net"
import type { World } from "./Nodepass.js"

export interface CuttingProxy {
  /** For `tunnel`: listens in front of this port, and returns its own. */
  readonly through: (tunnelPort: number) => Promise<number>
  /** Resets the connections that there are; waits for one if there is none. */
  readonly cut: () => Promise<void>
}

/** The world owns its sockets. */
export const make = (world: World, what: "control" | "pool" | "all"): CuttingProxy => {
  const cuts = new Set<() => void>()
  let came: () => void = () => undefined
  const isMeant = (first: Buffer) =>
    what === "all" || first.toString("latin1").startsWith("//pool") === (what === "pool")
  return {
    through: async (tunnelPort) => {
      const { port } = await world.listen((client) => {
        const server = world.own(
          Net.connect({ port: tunnelPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true }),
          (socket) => socket.destroy()
        )
        const cut = () => {
          cuts.delete(cut)
          client.resetAndDestroy()
          server.resetAndDestroy()
        }
        client.once("data", (first: Buffer) => {
          if (isMeant(first)) {
            cuts.add(cut)
            came()
          }
          server.write(first)
          client.pipe(server)
          server.pipe(client)
        })
        for (const socket of [client, server]) socket.on("error", cut).on("close", () => cuts.delete(cut))
      })
      return port
    },
    cut: async () => {
      while (cuts.size === 0) await new Promise<void>((resolve) => (came = resolve))
      for (const cut of cuts) cut()
    }
  }
}
