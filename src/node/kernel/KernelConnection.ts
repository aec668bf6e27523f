/**
 * A TCP socket as a `Connection`, by its descriptor alone, plain or with TLS on it: nothing of Node stands in between.
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
import type { Half } from "./Ledger.js"
import { isLater } from "./Libc.js"
import type { Poller } from "./Poller.js"
import * as SocketAddress from "./SocketAddress.js"
import type { TlsSession } from "./TlsSession.js"

/** A connection that is let go of, with what was read from it and put back. */
export type Released = Half

/** What is below a connection. */
export interface Below {
  /** Whether it is open and nothing of what was written, an end included, waits in this process. */
  readonly isWhole: () => boolean
  /**
   * Gives the descriptor away, once, still watched by the poller: the connection is closed for who still has it, and to
   * close it closes the `heir`.
   */
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

/** Closes what was released, at once or by a reset. */
export const closeHalf = ({ libc, openSsl }: Kernel, { descriptor, tls }: Half, asReset: boolean): void => {
  if (tls !== undefined) openSsl?.freeSession(tls.session)
  if (asReset) libc.linger(descriptor)
  libc.close(descriptor)
}

export interface MakeOptions {
  readonly tls?: TlsSession | undefined
  /** Whether the poller has the descriptor already. Defaults to `false`. */
  readonly isWatched?: boolean | undefined
}

/** A connection over an open socket, and what closes it. Owns the descriptor, and the TLS session where there is one. */
export const make = (
  kernel: Kernel,
  descriptor: number,
  remote: Address.Address,
  { isWatched = false, tls }: MakeOptions = {}
): { readonly connection: Connection; readonly close: () => void; readonly reset: () => void } => {
  const { libc, poller, sockets } = kernel
  // These answer with the negative errno when they fail, which is asked at once: nothing may come between.
  const checked = (result: number): number => (result < 0 ? -libc.errno() : result)
  const bytesOf = () => (tls === undefined ? checked(libc.read(fd, buffer, buffer.length)) : tls.read(buffer))
  const put = (bytes: Uint8Array) =>
    tls === undefined ? checked(libc.write(fd, bytes, bytes.length)) : tls.write(bytes)
  const halfClose = () => (tls === undefined ? checked(libc.shutdown(fd)) : tls.end())
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

  /** Bytes of writes are still in this process. */
  const isFull = () => pending.length > 0 || tls?.isWaiting() === true
  /** Hands to the kernel what it will take. */
  const flush = () => {
    if (fd < 0 || errno !== 0) return
    for (let [first] = pending; first !== undefined; [first] = pending) {
      const written = put(first)
      if (written < 0) return note(-written)
      if (written === first.length) pending.shift()
      else if (written > 0) pending[0] = first.subarray(written)
      // It is full; to TLS that is not an error.
      if (written < first.length && tls !== undefined) return
    }
    const flushed = tls?.flush() ?? 0
    if (flushed < 0) note(-flushed)
  }
  const note = (why: number) => {
    if (!isLater(why)) errno = why
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
    return left
  }
  const tell = () => {
    reader?.()
    writer?.()
  }
  const close = () => {
    if (heir !== undefined) return heir.close()
    // Without a word of TLS an end is taken for a reset.
    if (fd >= 0 && !finished && errno === 0) tls?.end()
    shut()
  }
  const shut = () => {
    const left = leave()
    if (left < 0) return
    poller.drop(left)
    tls?.free()
    libc.close(left)
    tell()
  }
  const reset = () => {
    if (heir !== undefined) return heir.reset()
    if (fd >= 0) libc.linger(fd)
    shut()
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
  /** Asks for what is there; `undefined` while nothing is. What `took` answers is how much was, `0` the peer's end. */
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
    if (isLater(-count)) readable = false
    else errno = -count
    return undefined
  }
  const read = (): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
    if (fd < 0) return Effect.fail(closed("read"))
    const first = front.pop()
    if (first !== undefined) return Effect.succeedSome(first)
    const count = ask(bytesOf)
    if (count === undefined) return errno === 0 ? park(read) : Effect.fail(error("read"))
    if (count === 0) return Effect.succeedNone
    // Less than there was room for: the kernel has no more, and tells of what comes next.
    if (count < buffer.length && tls === undefined) readable = over
    return Effect.succeedSome(buffer.slice(0, count))
  }
  /** What `read` would answer with, unless it would wait; takes nothing. */
  const look = (): "Bytes" | "End" | "Failure" | undefined => {
    if (fd < 0) return "Failure"
    if (front.length > 0) return "Bytes"
    const count = ask(tls === undefined ? () => checked(sockets.peek(fd, buffer, 1)) : bytesOf)
    if (count === undefined) return errno === 0 ? undefined : "Failure"
    // A session knows what came only by taking it.
    if (count > 0 && tls !== undefined) front.push(buffer.slice(0, count))
    return count === 0 ? "End" : "Bytes"
  }
  const peek = (): Effect.Effect<"Bytes" | "End", TransportError> => {
    const seen = look()
    if (seen === undefined) return park(peek)
    return seen === "Failure" ? Effect.fail(error("read")) : Effect.succeed(seen)
  }
  const watch: Connection["watch"] = (heard) =>
    Effect.sync(() => {
      const waiting = () => {
        const seen = look()
        if (seen === undefined) return
        if (reader === waiting) reader = undefined
        heard(seen)
      }
      reader = waiting
      waiting()
      return Effect.sync(() => {
        if (reader === waiting) reader = undefined
      })
    })

  const flushed: Effect.Effect<void, TransportError> = Effect.async((resume) => {
    writer = () => {
      if (isFull() && fd >= 0 && errno === 0) return
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
    return isFull() ? flushed : Effect.void
  }
  const end = Effect.suspend(() => {
    if (finished) return Effect.void
    return Effect.flatMap(!isFull() && fd >= 0 ? Effect.void : flushed, () => {
      if (fd < 0) return Effect.fail(closed("write"))
      finished = true
      const told = halfClose()
      if (told >= 0) return Effect.void
      if (isLater(-told)) return Effect.zipRight(flushed, halfClosed)
      errno = -told
      return Effect.fail(error("write"))
    })
  })
  /** Once what TLS says at the end is with the kernel. */
  const halfClosed = Effect.suspend(() => {
    if (fd < 0) return Effect.fail(closed("write"))
    const told = halfClose()
    if (told < 0) errno = -told
    return told < 0 ? Effect.fail(error("write")) : Effect.void
  })

  const connection: Connection = {
    get local() {
      return (local ??= SocketAddress.decode(name))
    },
    remote,
    read: Effect.suspend(read),
    peek: Effect.suspend(peek),
    watch,
    unread: (chunk) => {
      if (chunk.length > 0) front.push(chunk)
    },
    write: (chunk) => Effect.suspend(() => write(chunk)),
    unsent: () => pending.reduce((sum, { length }) => sum + length, tls?.unsent() ?? 0),
    end,
    reset: Effect.sync(reset)
  }
  below.set(connection, {
    isWhole: () => fd >= 0 && errno === 0 && !finished && pending.length === 0,
    release: (to) => {
      heir = to
      const released = { descriptor: leave(), ahead: joined(front.splice(0).toReversed()), tls: tls?.rest() }
      tell()
      return released
    }
  })
  if (isWatched) poller.pass(fd, ready)
  else if (!poller.watch(fd, ready)) errno = libc.errno()
  return { connection, close, reset }
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
