/**
 * A TCP socket as a `Connection`, by its descriptor alone: nothing of Node stands in between.
 *
 * The descriptor is in one place, which says -1 from the moment it is closed or given away. It is looked at before each
 * call, and no call waits, so none is closed twice, nor used after.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { getSystemErrorName } from "node:util"
import type * as Address from "../../Address.js"
import { type Connection, TransportError } from "../../Transport.js"
import { failure } from "../NodeConnection.js"
import type { Kernel } from "./Kernel.js"
import { isLater } from "./Libc.js"
import type { Poller } from "./Poller.js"
import * as SocketAddress from "./SocketAddress.js"

/** A connection that is let go of. */
export interface Released {
  readonly descriptor: number
  /** What was read from it and put back. */
  readonly ahead: Uint8Array
}

/** What is below a connection. */
export interface Below {
  /** Whether it is open and nothing of what was written, an end included, waits in this process. */
  readonly isWhole: () => boolean
  /** Gives the descriptor away, once: the connection is closed for who still has it, and to close it closes the `heir`. */
  readonly release: (heir?: Heir) => Released
}

/** What stands on a descriptor that was given away, where the scope of the connection still owns it. */
export interface Heir {
  readonly close: () => void
  readonly reset: () => void
}

/** What is below each connection, for who takes it over. */
export const below = new WeakMap<Connection, Below>()

/** An `errno`, as Node tells of it. */
export const because = (errno: number): NodeJS.ErrnoException => {
  const code = errno > 0 ? getSystemErrorName(-errno) : "UNKNOWN"
  return Object.assign(new Error(code), { code, errno: -errno })
}

/** What an `errno` means for an operation. */
export const failed = (
  operation: TransportError["operation"],
  address: Address.Address,
  errno: number
): TransportError => failure(operation, address, because(errno))

/** A connection over an open socket, and what closes it. Owns the descriptor. */
export const make = (
  kernel: Kernel,
  descriptor: number,
  remote: Address.Address
): { readonly connection: Connection; readonly close: () => void } => {
  const { libc, poller, sockets } = kernel
  let fd = descriptor
  /** Something may be there to be read. */
  let readable = true
  /** The peer has half-closed, or all is over: there is no need to be told again. */
  let over = false
  let ended = false
  let finished = false
  let errno = 0
  let heir: Heir | undefined
  let reader: (() => void) | undefined
  let writer: (() => void) | undefined
  const front: Array<Uint8Array> = []
  const pending: Array<Uint8Array> = []

  const closed = (operation: "read" | "write") => new TransportError({ operation, address: remote, reason: "Closed" })
  const error = (operation: "read" | "write") => (fd < 0 ? closed(operation) : failed(operation, remote, errno))

  const name = new Uint8Array(SocketAddress.room)
  if (sockets.nameOf(fd, name) < 0) errno = sockets.errno()
  let local: Address.Address | undefined

  /** Hands to the kernel what it will take. */
  const flush = () => {
    if (fd < 0 || errno !== 0) return
    for (let [first] = pending; first !== undefined; [first] = pending) {
      const written = libc.write(fd, first, first.length)
      if (written < 0) {
        const why = libc.errno()
        if (!isLater(why)) errno = why
        return
      }
      if (written < first.length) pending[0] = first.subarray(written)
      else pending.shift()
    }
  }
  const ready: Parameters<Poller["watch"]>[1] = (state) => {
    over ||= state.over
    if (state.readable) {
      readable = true
      reader?.()
    }
    if (state.writable) {
      flush()
      writer?.()
    }
  }

  const leave = () => {
    const left = fd
    fd = -1
    if (left >= 0) poller.forget(left)
    return left
  }
  const tell = () => {
    reader?.()
    writer?.()
  }
  const close = () => {
    if (heir !== undefined) return heir.close()
    const left = leave()
    if (left >= 0) libc.close(left)
    tell()
  }
  const reset = () => {
    if (heir !== undefined) return heir.reset()
    if (fd >= 0) libc.linger(fd)
    close()
  }

  const park = <A>(again: () => Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> =>
    Effect.async((resume) => {
      // Between the look and this, something may have come.
      if (readable || fd < 0) return resume(Effect.suspend(again))
      reader = () => {
        reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(again))
      }
      return Effect.sync(() => {
        reader = undefined
      })
    })
  /** Asks the kernel; `undefined` while nothing is there. What `took` answers is how much was, `0` the peer's end. */
  const ask = (took: () => number): number | undefined => {
    if (ended) return 0
    if (!readable) return undefined
    const count = took()
    if (count > 0) return count
    if (count === 0) {
      // After an error, which the system tells of once, all looks like an end.
      if (errno !== 0) return undefined
      ended = true
      return 0
    }
    const why = libc.errno()
    if (isLater(why)) readable = false
    else errno = why
    return undefined
  }
  const read = (): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
    if (fd < 0) return Effect.fail(closed("read"))
    const first = front.pop()
    if (first !== undefined) return Effect.succeedSome(first)
    const count = ask(() => libc.read(fd, buffer, buffer.length))
    if (count === undefined) return errno === 0 ? park(read) : Effect.fail(error("read"))
    if (count === 0) return Effect.succeedNone
    // Less than there was room for: the kernel has no more, and tells of what comes next.
    if (count < buffer.length) readable = over
    return Effect.succeedSome(buffer.slice(0, count))
  }
  const peek = (): Effect.Effect<"Bytes" | "End", TransportError> => {
    if (fd < 0) return Effect.fail(closed("read"))
    if (front.length > 0) return Effect.succeed("Bytes")
    const count = ask(() => sockets.peek(fd, buffer, 1))
    if (count === undefined) return errno === 0 ? park(peek) : Effect.fail(error("read"))
    return Effect.succeed(count === 0 ? "End" : "Bytes")
  }

  const flushed: Effect.Effect<void, TransportError> = Effect.async((resume) => {
    writer = () => {
      if (pending.length > 0 && fd >= 0 && errno === 0) return
      writer = undefined
      resume(fd >= 0 && errno === 0 ? Effect.void : Effect.fail(error("write")))
    }
    writer()
    return Effect.sync(() => {
      writer = undefined
    })
  })
  const write = (chunk: Uint8Array): Effect.Effect<void, TransportError> => {
    if (fd < 0 || finished) return Effect.fail(closed("write"))
    if (errno !== 0) return Effect.fail(error("write"))
    if (chunk.length > 0) pending.push(chunk)
    if (pending.length === 1) flush()
    return pending.length === 0 ? Effect.void : flushed
  }
  const end = Effect.suspend(() => {
    if (finished) return Effect.void
    return Effect.flatMap(pending.length === 0 && fd >= 0 ? Effect.void : flushed, () => {
      if (fd < 0) return Effect.fail(closed("write"))
      finished = true
      if (libc.shutdown(fd) >= 0) return Effect.void
      errno = libc.errno()
      return Effect.fail(error("write"))
    })
  })

  const connection: Connection = {
    get local() {
      return (local ??= SocketAddress.decode(name))
    },
    remote,
    read: Effect.suspend(read),
    peek: Effect.suspend(peek),
    unread: (chunk) => {
      if (chunk.length > 0) front.push(chunk)
    },
    write: (chunk) => Effect.suspend(() => write(chunk)),
    unsent: () => pending.reduce((sum, { length }) => sum + length, 0),
    end,
    reset: Effect.sync(reset)
  }
  below.set(connection, {
    isWhole: () => fd >= 0 && errno === 0 && !finished && pending.length === 0,
    release: (to) => {
      heir = to
      const released = { descriptor: leave(), ahead: joined(front.splice(0).toReversed()) }
      tell()
      return released
    }
  })
  if (!poller.watch(fd, ready)) errno = libc.errno()
  return { connection, close }
}

// internal

/** Shared: what is read is copied out of it at once. */
const buffer = new Uint8Array(64 * 1024)

/** In memory of their own: a chunk may be part of a larger piece, all of which a thread would be sent. */
const joined = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
