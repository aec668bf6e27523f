/**
 * A socket as streams use it: what is possible now, without a fiber. Its `Connection` must not be read or written any more;
 * it still closes and resets the socket.
 */
import type * as NonBlocking from "../../transport/NonBlocking.js"
import { broken, nothing } from "../../transport/NonBlocking.js"
import { isRetryable } from "./ffi/Libc.js"
import type { KernelSocket, SocketUser } from "./KernelSocket.js"

/** A class, since there are many sockets, and closures for each method would take most of the memory. */
export class NonBlockingSocket implements NonBlocking.Connection, SocketUser {
  readonly socket: KernelSocket
  private owner: NonBlocking.Owner | undefined
  private isShuttingDown = false

  constructor(socket: KernelSocket) {
    this.socket = socket
  }

  setOwner(owner: NonBlocking.Owner) {
    this.owner = owner
    this.socket.use(this)
  }
  becameReadable() {
    this.owner?.ready(true, false, this.socket.failed)
  }
  becameWritable() {
    if (this.isShuttingDown) this.shutdown()
    this.owner?.ready(false, true)
  }
  read(bytes: Uint8Array, at: number, size: number): number {
    const { socket } = this
    if (socket.fd < 0) return broken
    const first = socket.putBack.pop()
    if (first !== undefined) {
      bytes.set(first.subarray(0, size), at)
      if (first.length > size) socket.putBack.push(first.subarray(size))
      return Math.min(first.length, size)
    }
    if (socket.ended) return 0
    if (!socket.readable) return socket.errno === 0 ? nothing : broken
    const count = socket.noteRead(socket.receiveInto(bytes.subarray(at, at + size)))
    if (count === undefined) return socket.errno === 0 ? nothing : broken
    // A short read: the kernel has no more, and the poller reports what comes next.
    if (count < size && count > 0 && socket.tls === undefined) socket.readable = socket.hungUp
    return count
  }
  write(bytes: Uint8Array, at: number, size: number): number {
    const { socket } = this
    if (socket.fd < 0 || socket.errno !== 0) return broken
    if (socket.isFull()) return 0
    const count = socket.send(bytes.subarray(at, at + size))
    if (count >= 0) return count
    socket.noteFailure(-count)
    return socket.errno === 0 ? 0 : broken
  }
  shutdown() {
    const { socket } = this
    if (socket.fd < 0 || socket.errno !== 0) return
    this.isShuttingDown = socket.isFull()
    if (this.isShuttingDown) return
    const result = socket.halfClose()
    socket.finished = result >= 0
    this.isShuttingDown = result < 0 && isRetryable(-result)
  }
  close() {
    this.forget()
    this.socket.close()
  }
  reset() {
    this.forget()
    this.socket.resetNow()
  }
  private forget() {
    this.socket.use(undefined)
  }
}
