/**
 * A `Connection` over a socket of Node: plain TCP, or TLS on top of it.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import { type Connection, TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import * as NodeBuffer from "./NodeBuffer.js"
import { addressOf } from "./NodeHosts.js"

/**
 * Milliseconds of silence before the first keep-alive probe. Node sets ten probes, one second apart; if none is answered, the
 * connection fails.
 */
const [idleMillis, carryingMillis] = [1000, 30_000]

/** The options of every socket, connected and accepted. */
export const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: carryingMillis,
  highWaterMark: NodeBuffer.initialBytes
}

/** What a connection stands on. */
export interface Underlying {
  readonly socket: Net.Socket
  /** The TCP socket: of a plain connection `socket` itself. */
  readonly tcp: Net.Socket
  readonly buffer: NodeBuffer.Options
  /** Removes the connection from its socket, for TLS to take it. Bytes that were put back return to the socket. */
  readonly detach: () => void
}

/** What a connection stands on; `undefined` for a connection that was not made here. */
export const underlying = (connection: Connection): Underlying | undefined => underlyings.get(connection)

/** Closes a TCP socket, and the TLS on top of it, at once. */
export const destroy = (tcp: Net.Socket): void => {
  tlsOn.get(tcp)?.destroy()
  tcp.destroy()
}

/** Closes a TCP socket, and the TLS on top of it, so that the peer sees a reset. */
export const reset = (tcp: Net.Socket): void => {
  // First the TCP socket: TLS cannot reset, and closing it first would send an end.
  if (!tcp.destroyed) tcp.resetAndDestroy()
  tlsOn.get(tcp)?.destroy()
}

export interface Options {
  readonly buffer: NodeBuffer.Options
  /** The TCP socket below a TLS socket. Defaults to the socket itself. */
  readonly tcp?: Net.Socket | undefined
}

/** Adapts a socket from which nothing was read yet, and that has an error listener. */
export const fromSocket = (
  socket: Net.Socket,
  remote: Address.Address,
  { buffer, tcp = socket }: Options
): Connection => {
  const setSilence = (millis: number) => void tcp.setKeepAlive(true, millis)
  const reader = makeReader(socket, remote, NodeBuffer.make(socket, "read", buffer), setSilence, tcp)
  const writer = makeWriter(socket, remote, NodeBuffer.make(socket, "write", buffer))
  if (tcp !== socket) tlsOn.set(tcp, socket)
  const onClose = () => {
    reader.notify()
    writer.notify()
  }
  socket.on("drain", writer.notify).on("finish", writer.notify).on("close", onClose)
  const connection: Connection = {
    local: addressOf(tcp.localAddress ?? "", tcp.localPort ?? 0),
    remote,
    read: reader.read,
    watch: reader.watch,
    unread: reader.unread,
    write: writer.write,
    unsent: () => queuedBytes(tcp) + socket.writableLength,
    end: writer.end,
    reset: Effect.sync(() => reset(tcp))
  }
  const detach = () => {
    socket.off("drain", writer.notify).off("finish", writer.notify).off("close", onClose)
    reader.detach()
  }
  underlyings.set(connection, { socket, tcp, buffer, detach })
  return connection
}

// internal

const underlyings = new WeakMap<Connection, Underlying>()

/** The TLS socket on top of a TCP socket. */
const tlsOn = new WeakMap<Net.Socket, Net.Socket>()

const nothing = new Uint8Array(0)

interface Reader extends Pick<Connection, "read" | "unread" | "watch"> {
  /** Wakes the caller that waits. */
  readonly notify: () => void
  readonly detach: () => void
}

const makeReader = (
  socket: Net.Socket,
  remote: Address.Address,
  buffer: NodeBuffer.Buffer,
  setSilence: (millis: number) => void,
  tcp: Net.Socket
): Reader => {
  const putBack: Array<Uint8Array> = []
  let isListening = false
  let waiting: (() => void) | undefined
  let end: "None" | "Asking" | "Confirmed" | "Reset" = "None"

  /**
   * libuv reports a reset as an end when bytes came just before it. A write of nothing tells them apart. It is left out where our
   * side has ended or has bytes to write.
   */
  const confirmEnd = () => {
    if (end !== "None") return
    const isWriting = socket.writableEnded || socket.writableLength > 0 || tcp.writableLength > 0
    const isKnown = isWriting || socket.destroyed || tcp.destroyed
    end = isKnown ? "Confirmed" : "Asking"
    if (isKnown) return
    tcp.write(nothing, (error) => {
      end = error ? "Reset" : "Confirmed"
      if (waiting !== undefined && look() !== undefined) waiting()
    })
  }
  const lookAtEnd = () => {
    confirmEnd()
    return end === "Asking" ? undefined : end === "Reset" ? "Failure" : "End"
  }
  // We closed the socket. Otherwise bytes that have arrived come before an error that came after them.
  const isDropped = () => socket.destroyed && socket.errored === null && !socket.readableEnded
  /** What a read would return now. */
  const look = (): "Bytes" | "End" | "Failure" | undefined => {
    if (isDropped()) return "Failure"
    if (putBack.length > 0 || socket.readableLength > 0) return "Bytes"
    if (socket.readableEnded) return lookAtEnd()
    return socket.errored === null ? undefined : "Failure"
  }
  const onReadable = () => {
    // Node emits "end" only after a read that found no more bytes.
    if (socket.readableLength === 0 && !socket.readableEnded) socket.read(0)
    if (waiting !== undefined && look() !== undefined) waiting()
  }
  /** From the first read on: a "readable" listener makes Node read from the kernel. */
  const listen = () => {
    if (isListening) return
    isListening = true
    socket.on("readable", onReadable).on("end", onReadable)
  }

  /** Waits until a read would return something, then runs `again`. */
  const wait = <A>(again: () => Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> =>
    Effect.async((resume) => {
      // Something may have come since the last look.
      if (look() !== undefined) return resume(Effect.suspend(again))
      waiting = () => {
        waiting = undefined
        // Nothing is read here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(again))
      }
      return Effect.sync(() => {
        waiting = undefined
      })
    })
  const read = (): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
    listen()
    if (isDropped()) return Effect.fail(closed("read", remote))
    const chunk: Uint8Array | null = putBack.pop() ?? socket.read()
    if (chunk !== null) {
      buffer.adapt(chunk.length, 0)
      return Effect.succeedSome(chunk)
    }
    const found = socket.readableEnded ? lookAtEnd() : undefined
    if (found === "End") return Effect.succeedNone
    const reset =
      found === "Failure" ? new TransportError({ operation: "read", address: remote, reason: "Reset" }) : undefined
    const error = errorOf(socket, "read", remote) ?? reset
    return error === undefined ? wait(read) : Effect.fail(error)
  }
  const watch: Connection["watch"] = (listener) =>
    Effect.sync(() => {
      listen()
      const found = look()
      if (found !== undefined) {
        listener(found)
        return Effect.void
      }
      const lookAgain = () => {
        const found = look()
        if (found === undefined) return
        waiting = undefined
        listener(found)
      }
      waiting = lookAgain
      setSilence(idleMillis)
      return Effect.sync(() => {
        if (waiting === lookAgain) waiting = undefined
        setSilence(carryingMillis)
      })
    })
  return {
    read: Effect.suspend(read),
    watch,
    unread: (chunk) => {
      if (chunk.length > 0) putBack.push(chunk)
    },
    notify: () => waiting?.(),
    detach: () => {
      socket.off("readable", onReadable).off("end", onReadable)
      for (const chunk of putBack.splice(0)) socket.unshift(chunk)
    }
  }
}

interface Writer extends Pick<Connection, "end" | "write"> {
  /** Wakes the caller that waits. */
  readonly notify: () => void
}

const makeWriter = (socket: Net.Socket, remote: Address.Address, buffer: NodeBuffer.Buffer): Writer => {
  let waiting: (() => void) | undefined
  /** Waits until `isDone`, or until the socket fails. */
  const until = (isDone: () => boolean): Effect.Effect<void, TransportError> =>
    Effect.async((resume) => {
      waiting = () => {
        const error = isDone() ? undefined : errorOf(socket, "write", remote)
        if (!isDone() && error === undefined) return
        waiting = undefined
        resume(error === undefined ? Effect.void : Effect.fail(error))
      }
      waiting()
      return Effect.sync(() => {
        waiting = undefined
      })
    })
  const isBelowMark = () => !socket.destroyed && socket.writableLength < buffer.highWaterMark()
  /** When Node emits "drain". */
  const isEmpty = () => !socket.destroyed && socket.writableLength === 0
  const isFinished = () => socket.writableFinished
  return {
    write: (chunk) =>
      Effect.suspend(() => {
        const error = errorOf(socket, "write", remote) ?? (socket.writableEnded ? closed("write", remote) : undefined)
        if (error !== undefined) return Effect.fail(error)
        socket.write(chunk)
        // The result of `socket.write` does not show whether the kernel took the chunk at once, which is usual.
        const isDone = isBelowMark()
        buffer.adapt(chunk.length, socket.writableLength)
        return isDone ? Effect.void : until(isEmpty)
      }),
    end: Effect.suspend(() => {
      if (isFinished()) return Effect.void
      if (!socket.writableEnded) socket.end()
      return until(isFinished)
    }),
    notify: () => waiting?.()
  }
}

const errorOf = (
  socket: Net.Socket,
  operation: "read" | "write",
  remote: Address.Address
): TransportError | undefined => {
  if (socket.errored !== null) return Errno.fromNode(operation, remote, socket.errored)
  return socket.destroyed ? closed(operation, remote) : undefined
}

const closed = (operation: "read" | "write", address: Address.Address) =>
  new TransportError({ operation, address, reason: "Closed" })

/** Bytes that libuv holds. The kernel takes them piece by piece, but the stream reports only when it has taken all. */
const queuedBytes = (tcp: Net.Socket): number => {
  const handle: unknown = Reflect.get(tcp, "_handle")
  const size: unknown = Predicate.hasProperty(handle, "writeQueueSize") ? handle.writeQueueSize : 0
  return typeof size === "number" ? size : 0
}
