/**
 * Real sockets for `Transport`: TCP over `node:net`, and UDP.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { type Connection, type Listener, Transport, type TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import { addressOf, destroy, fromSocket, reset, socketOptions } from "./NodeConnection.js"
import type * as NodeBuffer from "./NodeBuffer.js"
import * as NodeDatagrams from "./NodeDatagrams.js"
import * as NodeDial from "./NodeDial.js"
import * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"

export interface Options {
  /** Bytes that a direction of a connection may hold in this process at most. Defaults to 256 KiB. */
  readonly bufferLimit?: number | undefined
}

export const make = (options?: Options): Transport["Type"] => {
  const buffer: NodeBuffer.Options = { limit: options?.bufferLimit }
  return Transport.of({
    connect: connect(buffer),
    listen: listen(buffer),
    secure,
    reaches: NodeHosts.reaches,
    bind: NodeDatagrams.bind,
    associate: NodeDatagrams.associate
  })
}

export const layerWith = (options: Options): Layer.Layer<Transport> => Layer.sync(Transport, () => make(options))

export const layer: Layer.Layer<Transport> = layerWith({})

/** Has Node take over an open TCP socket by its descriptor, with what was read from it already. */
export const adopt = (descriptor: number, ahead: Uint8Array, remote: Address.Address, options?: Options) => {
  const socket = new Net.Socket({ ...socketOptions, fd: descriptor, readable: true, writable: true }).on(
    "error",
    ignore
  )
  socket.pause()
  if (ahead.length > 0) socket.unshift(ahead)
  const connection = fromSocket(socket, remote, { buffer: { limit: options?.bufferLimit } })
  return { connection, close: () => destroy(socket), reset: () => reset(socket) }
}

// internal

const ignore = (): void => undefined

/** Loads TLS late: to do so takes some milliseconds, and many tunnels need none. */
const secure: Transport["Type"]["secure"] = (connection, as) =>
  Effect.promise(() => import("./NodeTls.js")).pipe(
    Effect.flatMap((NodeTls) => NodeTls.secure(connection, as)),
    Effect.onError(() => connection.reset)
  )

const connect =
  (buffer: NodeBuffer.Options) =>
  (address: Address.Address): Effect.Effect<Connection, TransportError, Scope.Scope> =>
    Effect.map(NodeDial.dial(address, NodeDial.viaNode), (socket) =>
      fromSocket(socket, addressOf(socket.remoteAddress ?? address.host, address.port), { buffer })
    )

const listen =
  (buffer: NodeBuffer.Options) =>
  (address: Address.Address): Effect.Effect<Listener, TransportError, Scope.Scope> => {
    // Node accepts as fast as peers connect and cannot be told to wait; what nobody asked for yet waits here.
    const arrived: Array<readonly [socket: Net.Socket, remote: Address.Address]> = []
    const waiting = new Set<() => void>()
    const close = (server: Net.Server) => {
      server.close()
      for (const [socket] of arrived.splice(0)) destroy(socket)
    }
    const arrive = (socket: Net.Socket) => {
      socket.on("error", ignore)
      if (socket.remoteAddress === undefined) return destroy(socket)
      arrived.push([socket, addressOf(socket.remoteAddress, socket.remotePort ?? 0)])
      const [wake] = waiting
      wake?.()
    }
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
    return owned(close, (own) =>
      Effect.async<Listener, TransportError>((resume) => {
        const server = Net.createServer({ ...socketOptions, pauseOnConnect: true }, arrive)
        own(server)
        server
          .on("error", (cause) => resume(Effect.fail(Errno.fromNode("listen", address, cause))))
          .listen(
            {
              port: address.port,
              // Without a host Node listens on `::` for both families, and on `0.0.0.0` where there is no IPv6.
              ...(address.host === "" || address.host === "*" ? {} : { host: address.host }),
              backlog: 4096
            },
            () => {
              const bound = server.address()
              if (bound === null || typeof bound === "string") return
              resume(Effect.succeed({ address: addressOf(bound.address, bound.port), accept }))
            }
          )
      })
    )
  }
