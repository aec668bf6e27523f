/**
 * The `Transport` of Linux by its own system calls: TCP, UDP, and TLS by OpenSSL. All else is as in `NodeTransport`.
 */
import * as Effect from "effect/Effect"
import { constants } from "node:os"
import { Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as NodeDial from "../socket/NodeDial.js"
import { addressOf } from "../socket/NodeHosts.js"
import * as NodeTransport from "../socket/NodeTransport.js"
import * as Resolver from "../socket/Resolver.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import * as KernelDatagrams from "./KernelDatagrams.js"
import * as KernelListener from "./KernelListener.js"
import * as KernelTls from "./KernelTls.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import * as Sockets from "./ffi/Sockets.js"

export interface Options extends NodeTransport.Options {
  readonly kernel: Kernel
}

export const make = ({ kernel, ...options }: Options): Transport["Type"] => {
  const resolver = options.resolver ?? Resolver.shared()
  const node = NodeTransport.make({ ...options, resolver })
  return Transport.of({
    ...node,
    connect: (address, options) => NodeDial.dial(address, attempt(kernel), { resolver, ...options }),
    connectNow: (address, on, options) => NodeDial.dialNow(address, attempt(kernel), on, { resolver, ...options }),
    listen: KernelListener.listen(kernel, resolver),
    bind: KernelDatagrams.bind(kernel, resolver),
    associate: KernelDatagrams.associate(kernel, resolver),
    secure:
      kernel.openSsl === undefined ? secureByNode(kernel, node, options) : KernelTls.secure(kernel, kernel.openSsl)
  })
}

// internal

/** TLS of Node, for a Node without a usable OpenSSL. It needs a socket of Node, which takes the descriptor over. */
const secureByNode =
  (
    { poller, sockets }: Kernel,
    { secure }: Transport["Type"],
    options: NodeTransport.Options
  ): Transport["Type"]["secure"] =>
  (connection, as) =>
    Effect.suspend(() => {
      const socket = KernelConnection.socketOf(connection)
      if (socket === undefined) return secure(connection, as)
      if (!socket.canDetach()) {
        return new TransportError({ operation: "read", address: connection.remote, reason: "Closed" })
      }
      const successor: { adopted?: ReturnType<typeof NodeTransport.adopt> } = {}
      const { buffered, descriptor } = socket.detach({
        close: () => successor.adopted?.close(),
        reset: () => successor.adopted?.reset()
      })
      poller.unwatch(descriptor)
      // Now, since Node owns the descriptor from here and closes it by itself.
      sockets.endOnClose(descriptor)
      successor.adopted = NodeTransport.adopt(descriptor, buffered, connection.remote, options)
      return secure(successor.adopted.connection, as)
    })

/** Made outside of the attempt, which it must not refer to: it lives as long as the connection. */
const closing = (connection: KernelConnection.SocketConnection) => () => connection.close()

const { EALREADY, EINPROGRESS, EISCONN } = constants.errno

/** One attempt to connect. It owns the descriptor until the connection is open. */
const attempt =
  (kernel: Kernel): NodeDial.Attempt<KernelConnection.SocketConnection> =>
  (ipAddress, address, { failed, opened }) => {
    const { libc, poller, sockets } = kernel
    const name = SocketAddress.encode(ipAddress, address.port)
    const fd = sockets.open(ipAddress.family)
    if (fd < 0) {
      failed(Errno.fromErrno("connect", address, sockets.errno()))
      return () => undefined
    }
    let isWatched = false
    let hungUp = false
    let close = () => {
      poller.forget(fd)
      libc.close(fd)
      close = () => undefined
    }
    const fail = (errno: number) => {
      close()
      failed(Errno.fromErrno("connect", address, errno))
    }
    const succeed = () => {
      const remote = addressOf(ipAddress.host, address.port)
      const connection = KernelConnection.make(kernel, fd, remote, { isWatched, hungUp })
      close = () => connection.close()
      opened(connection, closing(connection))
    }
    /** Begins to connect, or looks how it went. Returns whether it is still under way. */
    const proceed = (): boolean => {
      const errno = sockets.connect(fd, name) < 0 ? sockets.errno() : EISCONN
      if (errno === EINPROGRESS || errno === EALREADY) return true
      if (errno === EISCONN) succeed()
      else fail(errno)
      return false
    }
    Sockets.setDefaults(sockets, fd)
    if (proceed()) {
      isWatched = poller.watch(fd, {
        handle: (state) => {
          // The other side may have sent and ended already, which the poller reports once.
          hungUp ||= state.hungUp
          // Writable without an error: it is connected.
          if (state.writable && !state.hungUp) succeed()
          else proceed()
        }
      })
      if (!isWatched) fail(libc.errno())
    }
    return () => close()
  }
