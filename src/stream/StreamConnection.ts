/**
 * A stream as a `Transport.Connection`: what fibers write goes to the carrier, and what comes from the carrier they read. So a
 * visitor on a stream has everything that a visitor on a pool connection has.
 */
import * as Effect from "effect/Effect"
import type { Address } from "../core/Address.js"
import type * as NonBlocking from "../transport/NonBlocking.js"
import { broken, nothing } from "../transport/NonBlocking.js"
import { type Connection, type Reason, TransportError } from "../transport/Transport.js"
import type { Joinable } from "./StreamHandle.js"
import type { Listener, VisitorStream } from "./VisitorStream.js"

/** Bytes that wait on their way to a fiber, and to the carrier, before the writer waits. */
const highWaterBytes = 64 * 1024

/**
 * Both ends in one object: `Connection` for fibers, and `carrierEnd` for the multiplexer.
 *
 * The members of `Connection` are getters: a member takes memory only while it is used.
 */
export class StreamConnection implements Connection, Joinable {
  readonly local: Address
  readonly remote: Address
  /** What was written and is not in the carrier; and what was received and not read. */
  private readonly outgoing: Array<Uint8Array> = []
  private outgoingBytes = 0
  private readonly incoming: Array<Uint8Array> = []
  private incomingBytes = 0
  /** `end` was called here; and the multiplexer has taken the end. */
  private isFinished = false
  private isEndSent = false
  /** The other side has ended. */
  private hasEnded = false
  private failure: Reason | undefined
  private owner: NonBlocking.Owner | undefined
  private onReadable: (() => void) | undefined
  private onWritable: (() => void) | undefined
  private multiplexed: Multiplexed | undefined
  /** From `join` on, when no fiber uses this. */
  private joined: VisitorStream | undefined

  /** `remote`: the other end of the tunnel. */
  constructor(local: Address, remote: Address) {
    this.local = local
    this.remote = remote
  }

  /** Sets the stream that this is the end of. */
  bind(multiplexed: Multiplexed) {
    this.multiplexed = multiplexed
  }
  /** Whether both directions have ended, or the stream was reset. */
  isOver() {
    return this.failure !== undefined || this.joined?.isOver === true || (this.isEndSent && this.hasEnded)
  }
  /** Resets the stream unless it is over. `code`: see `StreamFrame.resets`. */
  resetNow(code?: number) {
    if (this.isOver()) return
    this.fail("Closed")
    this.multiplexed?.reset(code)
  }
  /**
   * Puts this connection in the place of the fibers, once and for all: what comes from it goes to the stream, and the other way
   * round. Returns the stream; `undefined` when that is not possible now, and the fibers have to go on.
   */
  join(connection: NonBlocking.Connection, listener: Listener): VisitorStream | undefined {
    const { multiplexed } = this
    if (multiplexed === undefined || this.isOver() || this.isFinished || this.outgoing.length > 0) return undefined
    for (let [first] = this.incoming; first !== undefined; [first] = this.incoming) {
      const taken = Math.max(0, connection.write(first, 0, first.length))
      this.incomingBytes -= taken
      if (taken === first.length) this.incoming.shift()
      else this.incoming[0] = first.subarray(taken)
      if (taken < first.length) return undefined
    }
    if (this.hasEnded) connection.shutdown()
    return (this.joined = multiplexed.connect(connection, listener))
  }

  // For fibers

  private error(operation: "read" | "write", reason: Reason = this.failure ?? "Closed") {
    return new TransportError({ operation, reason, address: this.remote })
  }
  get read(): Connection["read"] {
    const read: Connection["read"] = Effect.suspend(() => {
      const chunk = this.incoming.shift()
      if (chunk !== undefined) {
        const wasFull = this.incomingBytes >= highWaterBytes
        this.incomingBytes -= chunk.length
        if (wasFull) this.owner?.ready(false, true)
        return Effect.succeedSome(chunk)
      }
      if (this.failure !== undefined) return Effect.fail(this.error("read"))
      return this.hasEnded ? Effect.succeedNone : this.waitReadable(read)
    })
    return read
  }
  private waitReadable<A, E>(again: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.async((resume) => {
      this.onReadable = () => {
        this.onReadable = undefined
        resume(again)
      }
      if (this.look() !== undefined) this.onReadable()
      return Effect.sync(() => {
        this.onReadable = undefined
      })
    })
  }
  /** What `read` would find now. */
  private look(): "Bytes" | "End" | "Failure" | undefined {
    if (this.incoming.length > 0) return "Bytes"
    if (this.failure !== undefined) return "Failure"
    return this.hasEnded ? "End" : undefined
  }
  get watch(): Connection["watch"] {
    return (listener) =>
      Effect.sync(() => {
        const look = () => {
          const found = this.look()
          if (found === undefined) return
          if (this.onReadable === look) this.onReadable = undefined
          listener(found)
        }
        this.onReadable = look
        look()
        return Effect.sync(() => {
          if (this.onReadable === look) this.onReadable = undefined
        })
      })
  }
  get unread(): Connection["unread"] {
    return (chunk) => {
      if (chunk.length === 0) return
      this.incoming.unshift(chunk)
      this.incomingBytes += chunk.length
    }
  }
  get write(): Connection["write"] {
    return (chunk) =>
      Effect.suspend(() => {
        if (this.failure !== undefined || this.isFinished) return Effect.fail(this.error("write"))
        if (chunk.length === 0) return Effect.void
        this.outgoing.push(chunk)
        this.outgoingBytes += chunk.length
        this.owner?.ready(true, false)
        return this.outgoingBytes < highWaterBytes
          ? Effect.void
          : this.written(() => this.outgoingBytes < highWaterBytes)
      })
  }
  get unsent(): Connection["unsent"] {
    return () => this.outgoingBytes
  }
  get end(): Connection["end"] {
    return Effect.suspend(() => {
      if (this.failure !== undefined) return Effect.fail(this.error("write"))
      if (!this.isFinished) {
        this.isFinished = true
        this.owner?.ready(true, false)
      }
      return this.isEndSent ? Effect.void : this.written(() => this.isEndSent)
    })
  }
  /** Completes once the condition holds. */
  private written(isDone: () => boolean): Effect.Effect<void, TransportError> {
    return Effect.async((resume) => {
      this.onWritable = () => {
        if (this.failure === undefined && !isDone()) return
        this.onWritable = undefined
        resume(this.failure === undefined || isDone() ? Effect.void : Effect.fail(this.error("write")))
      }
      this.onWritable()
      return Effect.sync(() => {
        this.onWritable = undefined
      })
    })
  }
  get reset(): Connection["reset"] {
    return Effect.sync(() => this.resetNow())
  }

  // For the multiplexer

  private fail(reason: Reason) {
    this.failure ??= reason
    this.outgoing.length = 0
    this.outgoingBytes = 0
    if (reason === "Closed") this.incoming.length = 0
    this.onReadable?.()
    this.onWritable?.()
  }
  readonly carrierEnd: NonBlocking.Connection = {
    read: (bytes, at, size) => {
      if (this.failure !== undefined) return broken
      let count = 0
      for (let [first] = this.outgoing; first !== undefined && count < size; [first] = this.outgoing) {
        const part = first.subarray(0, size - count)
        bytes.set(part, at + count)
        count += part.length
        if (part.length === first.length) this.outgoing.shift()
        else this.outgoing[0] = first.subarray(part.length)
      }
      this.outgoingBytes -= count
      if (count === 0 && this.isFinished) this.isEndSent = true
      if (count > 0 || this.isEndSent) this.onWritable?.()
      return count > 0 || this.isEndSent ? count : nothing
    },
    write: (bytes, at, size) => {
      if (this.failure !== undefined) return broken
      const count = Math.max(0, Math.min(size, highWaterBytes - this.incomingBytes))
      if (count === 0) return 0
      this.incoming.push(bytes.slice(at, at + count))
      this.incomingBytes += count
      this.onReadable?.()
      return count
    },
    shutdown: () => {
      this.hasEnded = true
      this.onReadable?.()
    },
    close: () => {
      this.hasEnded = true
      this.onReadable?.()
    },
    reset: () => this.fail("Reset"),
    setOwner: (owner) => {
      this.owner = owner
    }
  }
}

/** The stream of a connection. */
export interface Multiplexed {
  readonly reset: (code: number | undefined) => void
  /** Gives the stream another connection, and another listener. */
  readonly connect: (connection: NonBlocking.Connection, listener: Listener) => VisitorStream
}
