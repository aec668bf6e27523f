/**
 * The `Transport` over Node's sockets: TCP by `node:net`, TLS by `node:tls`, UDP by `node:dgram`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { type Connection, Transport, type TransportError } from "../../transport/Transport.js"
import { destroy, fromSocket, reset, socketOptions } from "./NodeConnection.js"
import type * as NodeBuffer from "./NodeBuffer.js"
import * as NodeDatagrams from "./NodeDatagrams.js"
import * as NodeDial from "./NodeDial.js"
import * as NodeHosts from "./NodeHosts.js"
import * as NodeListener from "./NodeListener.js"

export interface Options {
  /** Bytes that one direction of a connection may hold in this process. Defaults to 256 KiB. */
  readonly bufferLimit?: number | undefined
}

export const make = (options?: Options): Transport["Type"] => {
  const buffer: NodeBuffer.Options = { limit: options?.bufferLimit }
  return Transport.of({
    connect: connect(buffer),
    listen: NodeListener.listen(buffer),
    secure,
    reaches: NodeHosts.reaches,
    bind: NodeDatagrams.bind,
    associate: NodeDatagrams.associate
  })
}

export const layerWith = (options: Options): Layer.Layer<Transport> => Layer.sync(Transport, () => make(options))

export const layer: Layer.Layer<Transport> = layerWith({})

/** A connection of Node over an open descriptor, which Node owns from now on. `buffered` was read from it already. */
export const adopt = (descriptor: number, buffered: Uint8Array, remote: Address.Address, options?: Options) => {
  const socket = new Net.Socket({ ...socketOptions, fd: descriptor, readable: true, writable: true })
  socket.on("error", () => undefined).pause()
  if (buffered.length > 0) socket.unshift(buffered)
  const connection = fromSocket(socket, remote, { buffer: { limit: options?.bufferLimit } })
  return { connection, close: () => destroy(socket), reset: () => reset(socket) }
}

// internal

/** Loads `node:tls` when it is needed: that takes some milliseconds, and many tunnels have no TLS. */
const secure: Transport["Type"]["secure"] = (connection, as) =>
  Effect.promise(() => import("./NodeTls.js")).pipe(
    Effect.flatMap((NodeTls) => NodeTls.secure(connection, as)),
    Effect.onError(() => connection.reset)
  )

const connect =
  (buffer: NodeBuffer.Options) =>
  (address: Address.Address): Effect.Effect<Connection, TransportError, Scope.Scope> =>
    Effect.map(NodeDial.dial(address, NodeDial.viaNode), (socket) =>
      fromSocket(socket, NodeHosts.addressOf(socket.remoteAddress ?? address.host, address.port), { buffer })
    )
