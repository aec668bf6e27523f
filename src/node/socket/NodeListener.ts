/**
 * A listening TCP port of Node.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import type { Listener, ListenOptions, Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import * as EveryAddress from "./EveryAddress.js"
import type * as NodeBuffer from "./NodeBuffer.js"
import { destroy, fromSocket, reset, socketOptions } from "./NodeConnection.js"
import { addressOf } from "./NodeHosts.js"
import { owned } from "./NodeScope.js"
import type { Resolver } from "./Resolver.js"

/** See `Transport`. */
export const listen =
  (buffer: NodeBuffer.Options, resolver: Resolver): Transport["Type"]["listen"] =>
  (address, options) =>
    Effect.gen(function* () {
      const arrivals = makeArrivals(buffer, options?.admit)
      yield* Effect.addFinalizer(() => Effect.sync(arrivals.close))
      const open = (host: string | undefined, port: number) => openServer(address, host, port, arrivals.add)
      // Without a host Node listens on `::` for both families, or on `0.0.0.0` on a system without IPv6.
      const [bound] =
        address.host === "" || address.host === "*"
          ? [yield* open(undefined, address.port)]
          : yield* EveryAddress.open(address, {
              resolver,
              operation: "listen",
              open: ({ host }, port) => open(host, port),
              portOf: ({ port }) => port
            })
      return { address: bound, accept: arrivals.accept }
    })

// internal

/** The address that the server listens on. */
const openServer = (
  address: Address.Address,
  host: string | undefined,
  port: number,
  onConnection: (socket: Net.Socket) => void
): Effect.Effect<Address.Address, TransportError, Scope.Scope> =>
  owned(
    (server: Net.Server) => void server.close(),
    (own) =>
      Effect.async((resume) => {
        const server = Net.createServer({ ...socketOptions, pauseOnConnect: true }, onConnection)
        own(server)
        server
          .on("error", (cause) => resume(Effect.fail(Errno.fromNode("listen", address, cause))))
          .listen({ port, ...(host === undefined ? {} : { host }), backlog: 4096 }, () => {
            const bound = server.address()
            if (bound === null || typeof bound === "string") return
            resume(Effect.succeed(addressOf(bound.address, bound.port)))
          })
      })
  )

/** Connections that no caller has accepted yet. Node has no way to leave them in the backlog of the kernel. */
const makeArrivals = (buffer: NodeBuffer.Options, admit: ListenOptions["admit"]) => {
  const arrived: Array<readonly [socket: Net.Socket, remote: Address.Address]> = []
  const waiting = new Set<() => void>()
  const arrival = Effect.async<void>((resume) => {
    const wake = () => {
      waiting.delete(wake)
      resume(Effect.void)
    }
    if (arrived.length > 0) return resume(Effect.void)
    waiting.add(wake)
    return Effect.sync(() => waiting.delete(wake))
  })
  const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      const [socket, remote] = arrived.shift() ?? []
      if (socket === undefined || remote === undefined) return Effect.zipRight(restore(arrival), next)
      if (socket.destroyed) return next
      return Effect.as(
        Effect.addFinalizer(() => Effect.sync(() => destroy(socket))),
        fromSocket(socket, remote, { buffer })
      )
    })
    return next
  })
  return {
    accept,
    add: (socket: Net.Socket) => {
      socket.on("error", () => undefined)
      // The peer has reset the connection already.
      if (socket.remoteAddress === undefined) return destroy(socket)
      const remote = addressOf(socket.remoteAddress, socket.remotePort ?? 0)
      if (admit?.(remote) === false) return reset(socket)
      arrived.push([socket, remote])
      const [wake] = waiting
      wake?.()
    },
    close: () => {
      for (const [socket] of arrived.splice(0)) destroy(socket)
    }
  }
}
