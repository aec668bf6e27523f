/**
 * Real sockets for `Transport`: TCP by the system calls themselves, on Linux, and the rest as `NodeTransport` has it.
 *
 * What nobody accepts yet waits in the kernel's backlog.
 */
import * as Effect from "effect/Effect"
import { constants } from "node:os"
import { type Connection, Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import { addressOf } from "../socket/NodeConnection.js"
import type * as NodeDial from "../socket/NodeDial.js"
import { dial } from "../socket/NodeDial.js"
import * as NodeTransport from "../socket/NodeTransport.js"
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
  const node = NodeTransport.make(options)
  return Transport.of({
    ...node,
    connect: (address) => dial(address, viaKernel(kernel)),
    listen: KernelListener.listen(kernel),
    bind: KernelDatagrams.bind(kernel),
    associate: KernelDatagrams.associate(kernel),
    secure: kernel.openSsl === undefined ? overNode(kernel, node, options) : KernelTls.secure(kernel, kernel.openSsl)
  })
}

// internal

/** Node's TLS stands on Node's sockets. */
const overNode =
  (
    { libc, poller }: Kernel,
    { secure }: Transport["Type"],
    options: NodeTransport.Options
  ): Transport["Type"]["secure"] =>
  (connection, as) =>
    Effect.suspend(() => {
      const found = KernelConnection.below(connection)
      if (found === undefined) return secure(connection, as)
      if (!found.isWhole()) {
        return new TransportError({ operation: "read", address: connection.remote, reason: "Closed" })
      }
      const heir: { adopted?: ReturnType<typeof NodeTransport.adopt> } = {}
      const { ahead, descriptor } = found.release({
        close: () => heir.adopted?.close(),
        reset: () => heir.adopted?.reset()
      })
      poller.forget(descriptor)
      // Node closes without a word to us.
      libc.settle(descriptor)
      heir.adopted = NodeTransport.adopt(descriptor, ahead, connection.remote, options)
      return secure(heir.adopted.connection, as)
    })

const { EALREADY, EINPROGRESS, EISCONN } = constants.errno

const viaKernel =
  (kernel: Kernel): NodeDial.Attempt<Connection> =>
  (way, address, { failed, opened }) => {
    const { libc, poller, sockets } = kernel
    const name = SocketAddress.encode(way, address.port)
    const fd = sockets.open(way.family)
    if (fd < 0) {
      failed(Errno.fromErrno("connect", address, sockets.errno()))
      return () => undefined
    }
    let isWatched = false
    let close = () => {
      poller.drop(fd)
      libc.close(fd)
      close = () => undefined
    }
    const fail = (errno: number) => {
      close()
      failed(Errno.fromErrno("connect", address, errno))
    }
    /** Begins, or asks how it went; answers whether that is to be seen. */
    const ask = (): boolean => {
      const errno = sockets.connect(fd, name) < 0 ? sockets.errno() : EISCONN
      if (errno === EINPROGRESS || errno === EALREADY) return true
      if (errno !== EISCONN) fail(errno)
      else {
        const made = KernelConnection.make(kernel, fd, addressOf(way.host, address.port), { isWatched })
        ;({ close } = made)
        opened(made.connection, made.close)
      }
      return false
    }
    Sockets.tune(sockets, fd)
    if (ask()) {
      isWatched = poller.watch(fd, () => void ask())
      if (!isWatched) fail(libc.errno())
    }
    return () => close()
  }
