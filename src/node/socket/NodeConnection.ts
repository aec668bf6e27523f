/**
 * A TCP socket as a `Connection`, and what Node says of sockets in the words of `Transport`.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Net from "node:net"
import * as Address from "../../core/Address.js"
import * as Errno from "./Errno.js"
import * as NodeBuffer from "./NodeBuffer.js"
import { type Connection, TransportError } from "../../transport/Transport.js"

/** What every socket is opened with, dialled and accepted. */
export const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 30_000,
  highWaterMark: NodeBuffer.initial
}

/** A socket or server address, an IPv4 address in IPv6 clothes shown as itself. */
export const addressOf = (host: string, port: number): Address.Address =>
  Address.make(/^::ffff:[\d.]+$/i.test(host) ? host.slice(7) : host, port)

/** What is below a connection. */
export interface Below {
  readonly socket: Net.Socket
  /** The TCP socket: of a plain connection the same. */
  readonly tcp: Net.Socket
  readonly buffer: NodeBuffer.Options
  /** Takes the connection off its socket, which is given back what was read and put back. */
  readonly release: () => void
}

/** What is below each connection, for who puts another on its socket. */
export const below = new WeakMap<Connection, Below>()

/** Closes a TCP socket and what was put on it, at once for both. */
export const destroy = (tcp: Net.Socket): void => {
  tops.get(tcp)?.destroy()
  tcp.destroy()
}

/** Closes a TCP socket and what was put on it, so that the peer sees a reset. */
export const reset = (tcp: Net.Socket): void => {
  // What stands on top can neither reset nor be closed first: it would end the connection.
  if (!tcp.destroyed) tcp.resetAndDestroy()
  tops.get(tcp)?.destroy()
}

export interface Options {
  readonly buffer: NodeBuffer.Options
  /** The TCP socket that it stands on. Defaults to itself. */
  readonly tcp?: Net.Socket | undefined
}

/** Adapts a socket from which nothing was read yet, and that has an error listener. */
export const fromSocket = (
  socket: Net.Socket,
  remote: Address.Address,
  { buffer, tcp = socket }: Options
): Connection => {
  const reads = NodeBuffer.make(socket, "read", buffer)
  const writes = NodeBuffer.make(socket, "write", buffer)
  const local = addressOf(tcp.localAddress ?? "", tcp.localPort ?? 0)
  if (tcp !== socket) tops.set(tcp, socket)
  const front: Array<Uint8Array> = []
  let asked = false
  let reader: (() => void) | undefined
  let writer: (() => void) | undefined

  const broken = (operation: "read" | "write"): TransportError | undefined => {
    if (socket.errored !== null) return Errno.fromNode(operation, remote, socket.errored)
    return socket.destroyed ? new TransportError({ operation, address: remote, reason: "Closed" }) : undefined
  }

  // Bytes that arrived come before the error that came after them, unless we dropped the connection ourselves.
  const dropped = () => socket.destroyed && socket.errored === null && !socket.readableEnded
  const look = (): "Bytes" | "End" | "Failure" | undefined => {
    if (dropped()) return "Failure"
    if (front.length > 0 || socket.readableLength > 0) return "Bytes"
    if (socket.readableEnded) return "End"
    return socket.errored === null ? undefined : "Failure"
  }
  const wakeReader = () => {
    // An end behind no bytes is only announced to somebody who reads.
    if (socket.readableLength === 0 && !socket.readableEnded) socket.read(0)
    if (reader !== undefined && look() !== undefined) reader()
  }
  const wakeWriter = () => writer?.()
  const wakeBoth = () => {
    reader?.()
    writer?.()
  }
  socket.on("drain", wakeWriter).on("finish", wakeWriter).on("close", wakeBoth)
  const ask = () => {
    if (asked) return
    asked = true
    socket.on("readable", wakeReader).on("end", wakeReader)
  }

  /** Looks again when there may be something to see; between a look and this, there may have been. */
  const park = <A>(again: () => Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> =>
    Effect.async((resume) => {
      if (look() !== undefined) return resume(Effect.suspend(again))
      reader = () => {
        reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(again))
      }
      return Effect.sync(() => {
        reader = undefined
      })
    })
  const read = (): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
    ask()
    if (dropped()) return Effect.fail(closed("read"))
    const chunk: Uint8Array | null = front.pop() ?? socket.read()
    if (chunk !== null) {
      reads.saw(chunk.length, 0)
      return Effect.succeedSome(chunk)
    }
    if (socket.readableEnded) return Effect.succeedNone
    const error = broken("read")
    return error === undefined ? park(read) : Effect.fail(error)
  }

  const watch: Connection["watch"] = (heard) =>
    Effect.sync(() => {
      ask()
      const seen = look()
      if (seen !== undefined) {
        heard(seen)
        return Effect.void
      }
      const waiting = () => {
        const seen = look()
        if (seen === undefined) return
        reader = undefined
        heard(seen)
      }
      reader = waiting
      return Effect.sync(() => {
        if (reader === waiting) reader = undefined
      })
    })

  const closed = (operation: "read" | "write") => new TransportError({ operation, address: remote, reason: "Closed" })
  const written = (done: () => boolean): Effect.Effect<void, TransportError> =>
    Effect.async((resume) => {
      writer = () => {
        const error = done() ? undefined : broken("write")
        if (!done() && error === undefined) return
        writer = undefined
        resume(error === undefined ? Effect.void : Effect.fail(error))
      }
      writer()
      return Effect.sync(() => {
        writer = undefined
      })
    })
  const drained = () => !socket.destroyed && socket.writableLength < writes.mark()
  // What `drain` tells of.
  const empty = () => !socket.destroyed && socket.writableLength === 0
  const finished = () => socket.writableFinished

  const connection: Connection = {
    local,
    remote,
    read: Effect.suspend(read),
    watch,
    unread: (chunk) => {
      if (chunk.length > 0) front.push(chunk)
    },
    write: (chunk) =>
      Effect.suspend(() => {
        const error = broken("write") ?? (socket.writableEnded ? closed("write") : undefined)
        if (error !== undefined) return Effect.fail(error)
        socket.write(chunk)
        // The kernel mostly takes the chunk at once, which the answer of `socket.write` does not say.
        const done = drained()
        writes.saw(chunk.length, socket.writableLength)
        return done ? Effect.void : written(empty)
      }),
    unsent: () => queued(tcp) + socket.writableLength,
    end: Effect.suspend(() => {
      if (finished()) return Effect.void
      if (!socket.writableEnded) socket.end()
      return written(finished)
    }),
    reset: Effect.sync(() => reset(tcp))
  }
  const release = () => {
    socket.off("drain", wakeWriter).off("finish", wakeWriter).off("close", wakeBoth)
    socket.off("readable", wakeReader).off("end", wakeReader)
    for (const chunk of front.splice(0)) socket.unshift(chunk)
  }
  below.set(connection, { socket, tcp, buffer, release })
  return connection
}

// internal

/** Bytes that libuv holds for the kernel, which it takes piece by piece; the stream only tells when all are gone. */
const queued = (tcp: Net.Socket): number => {
  const handle: unknown = Reflect.get(tcp, "_handle")
  const size: unknown = Predicate.hasProperty(handle, "writeQueueSize") ? handle.writeQueueSize : 0
  return typeof size === "number" ? size : 0
}

/** What speaks for a TCP socket, where that is not itself. */
const tops = new WeakMap<Net.Socket, Net.Socket>()
