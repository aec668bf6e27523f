/**
 * A `Connection` over a `KernelSocket`: what the socket can do now, as effects that wait until it can.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Address from "../../core/Address.js"
import { type Connection, type OwnedByCaller, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import { isRetryable } from "./ffi/Libc.js"
import type { Kernel } from "./Kernel.js"
import * as KernelSocket from "./KernelSocket.js"
import { NonBlockingSocket } from "./NonBlockingSocket.js"
import * as TcpInfo from "./TcpInfo.js"
import type { TlsSession } from "./tls/TlsSession.js"

/** The socket of a connection; `undefined` for a connection that was not made here. */
export const socketOf = (connection: Connection): KernelSocket.KernelSocket | undefined =>
  connection instanceof SocketConnection ? connection : undefined

export interface Options {
  readonly tls?: TlsSession | undefined
  /** Whether the poller watches the descriptor already. Defaults to `false`. */
  readonly isWatched?: boolean | undefined
  /** The poller has reported that the peer has half-closed. Defaults to `false`. */
  readonly hungUp?: boolean | undefined
}

/** A connection over an open socket. It owns the descriptor and the TLS session until it is closed or reset. */
export const make = (
  kernel: Kernel,
  descriptor: number,
  remote: Address.Address,
  { hungUp = false, isWatched = false, tls }: Options = {}
): SocketConnection => {
  const connection = new SocketConnection(kernel, descriptor, remote, tls)
  connection.hungUp = hungUp
  connection.watchDescriptor(isWatched)
  return connection
}

/**
 * The members of `Connection` are getters: a member takes memory only while it is used, and may be taken from the connection
 * like a field.
 */
export class SocketConnection extends KernelSocket.KernelSocket implements OwnedByCaller {
  closed(operation: "read" | "write") {
    return new TransportError({ operation, address: this.remote, reason: "Closed" })
  }
  error(operation: "read" | "write") {
    return this.fd < 0 ? this.closed(operation) : Errno.fromErrno(operation, this.remote, this.errno)
  }
  get reset() {
    return Effect.sync(() => this.resetNow())
  }
  get nonBlocking(): Connection["nonBlocking"] {
    return () => new NonBlockingSocket(this)
  }

  get inspect(): Connection["inspect"] {
    return () => TcpInfo.inspect(this.kernel.sockets, this.fd)
  }

  // Reading

  /** Waits until something may be read, then runs `again`. */
  waitReadable<A>(again: Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> {
    return Effect.async((resume) => {
      // Something may have come since the last look.
      if (this.readable || this.fd < 0) return resume(again)
      this.onReadable = () => {
        this.onReadable = undefined
        // Nothing is read here: the fiber may be interrupted before it runs.
        resume(again)
      }
      return Effect.sync(() => {
        this.onReadable = undefined
      })
    })
  }
  get read(): Effect.Effect<Option.Option<Uint8Array>, TransportError> {
    const read: Connection["read"] = Effect.suspend(() => {
      if (this.fd < 0) return Effect.fail(this.closed("read"))
      const first = this.putBack.pop()
      if (first !== undefined) return Effect.succeedSome(first)
      const count = this.readOnce()
      if (count === undefined) return this.errno === 0 ? this.waitReadable(read) : Effect.fail(this.error("read"))
      if (count === 0) return Effect.succeedNone
      // A short read: the kernel has no more, and the poller reports what comes next.
      if (count < KernelSocket.buffer.length && this.tls === undefined) this.readable = this.hungUp
      return Effect.succeedSome(KernelSocket.buffer.slice(0, count))
    })
    return read
  }
  get watch(): Connection["watch"] {
    return (onFound) =>
      Effect.sync(() => {
        const look = () => {
          const found = this.look()
          if (found === undefined) return
          if (this.onReadable === look) this.onReadable = undefined
          onFound(found)
        }
        this.onReadable = look
        this.setLiveness("idle")
        look()
        return Effect.sync(() => {
          if (this.onReadable === look) this.onReadable = undefined
          this.setLiveness("carrying")
        })
      })
  }
  get unread(): Connection["unread"] {
    return (chunk) => {
      if (chunk.length > 0) this.putBack.push(chunk)
    }
  }

  // Writing

  /** Completes when no write waits in this process. */
  get flushed(): Effect.Effect<void, TransportError> {
    return Effect.async((resume) => {
      this.onWritable = () => {
        if (this.isFull() && this.fd >= 0 && this.errno === 0) return
        this.onWritable = undefined
        resume(this.fd >= 0 && this.errno === 0 ? Effect.void : Effect.fail(this.error("write")))
      }
      this.onWritable()
      return Effect.sync(() => {
        this.onWritable = undefined
      })
    })
  }
  get write(): Connection["write"] {
    return (chunk) =>
      Effect.suspend(() => {
        if (this.fd < 0 || this.finished) return Effect.fail(this.closed("write"))
        if (this.errno !== 0) return Effect.fail(this.error("write"))
        if (chunk.length > 0) this.pending.push(chunk)
        if (this.pending.length === 1) this.flush()
        return this.isFull() ? this.flushed : Effect.void
      })
  }
  get unsent(): Connection["unsent"] {
    return () => this.pending.reduce((sum, { length }) => sum + length, this.tls?.unsent() ?? 0)
  }
  get end(): Effect.Effect<void, TransportError> {
    return Effect.suspend(() => {
      if (this.finished) return Effect.void
      return Effect.flatMap(!this.isFull() && this.fd >= 0 ? Effect.void : this.flushed, () => {
        if (this.fd < 0) return Effect.fail(this.closed("write"))
        this.finished = true
        const result = this.halfClose()
        if (result >= 0) return Effect.void
        if (isRetryable(-result)) return Effect.zipRight(this.flushed, this.halfClosed)
        this.errno = -result
        return Effect.fail(this.error("write"))
      })
    })
  }
  /** Half-closes once the kernel has taken the `close_notify` of TLS. */
  get halfClosed(): Effect.Effect<void, TransportError> {
    return Effect.suspend(() => {
      if (this.fd < 0) return Effect.fail(this.closed("write"))
      const result = this.halfClose()
      if (result < 0) this.errno = -result
      return result < 0 ? Effect.fail(this.error("write")) : Effect.void
    })
  }
}
