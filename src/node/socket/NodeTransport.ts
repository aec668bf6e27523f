/**
 * The `Transport` over Node's sockets: TCP by `node:net`, TLS by `node:tls`, UDP by `node:dgram`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { Transport } from "../../transport/Transport.js"
import { destroy, fromSocket, reset, socketOptions } from "./NodeConnection.js"
import type * as NodeBuffer from "./NodeBuffer.js"
import * as NodeDatagrams from "./NodeDatagrams.js"
import * as NodeDial from "./NodeDial.js"
import * as NodeHosts from "./NodeHosts.js"
import * as NodeListener from "./NodeListener.js"
import * as Resolver from "./Resolver.js"

export interface Options {
  /** Resolves host names. Defaults to the resolver of this process. */
  readonly resolver?: Resolver.Resolver | undefined
  /** Bytes that one direction of a connection may hold in this process. Defaults to 256 KiB. */
  readonly bufferLimit?: number | undefined
}

export const make = (options?: Options): Transport["Type"] => {
  const buffer: NodeBuffer.Options = { limit: options?.bufferLimit }
  const resolver = options?.resolver ?? Resolver.shared()
  return Transport.of({
    connect: connect(buffer, resolver),
    listen: NodeListener.listen(buffer, resolver),
    secure,
    reaches: Resolver.reaches(resolver),
    bind: NodeDatagrams.bind(resolver),
    associate: NodeDatagrams.associate(resolver)
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
  (buffer: NodeBuffer.Options, resolver: Resolver.Resolver): Transport["Type"]["connect"] =>
  (address, options) =>
    Effect.map(NodeDial.dial(address, NodeDial.viaNode, { resolver, ...options }), (socket) =>
      fromSocket(socket, NodeHosts.addressOf(socket.remoteAddress ?? address.host, address.port), { buffer })
    )
