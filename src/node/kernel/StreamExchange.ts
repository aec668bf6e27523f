/**
 * An exchange between a socket and a stream: the multiplexer of the stream moves the bytes, without a fiber. When the stream
 * has become bulk, and is moved to a pool connection, the kernel moves them.
 */
import { constVoid } from "effect/Function"
import { constants } from "node:os"
import type * as NonBlocking from "../../transport/NonBlocking.js"
import type { Path, Progress } from "../../relay/Relay.js"
import * as StreamFrame from "../../stream/StreamFrame.js"
import type { Joinable } from "../../stream/StreamHandle.js"
import { PooledConnection } from "../../stream/PooledConnection.js"
import type { Listener, Pooled, Result as StreamResult, VisitorStream } from "../../stream/VisitorStream.js"
import * as KernelConnection from "./KernelConnection.js"
import type { KernelExchange, Result } from "./KernelExchange.js"
import type { KernelSocket } from "./KernelSocket.js"
import { NonBlockingSocket } from "./NonBlockingSocket.js"
import type { DetachedSocket } from "./reactor/ReactorMessages.js"
import type { Bytes } from "./ReactorThread.js"

export interface Options {
  /** Infinity for no limit. */
  readonly idleMillis: number
  /** Begins an exchange of sockets, for a stream that was moved. */
  readonly begin: (sockets: readonly [near: DetachedSocket, far: DetachedSocket]) => KernelExchange
}

/** Begins an exchange; `undefined` when the stream cannot be joined, and both are as they were. */
export const begin = (options: Options, near: KernelSocket, far: Joinable): KernelExchange | undefined => {
  const exchange = new StreamExchange(options, near, far)
  return exchange.join() ? exchange : undefined
}

// internal

/** A class, since there are many visitors, and closures for each method would take most of the memory. */
class StreamExchange implements KernelExchange, Listener {
  private readonly options: Options
  private readonly near: KernelSocket
  private readonly far: Joinable
  private stream: VisitorStream | undefined
  private listener: ((result: Result) => void) | undefined
  private result: Result | undefined
  /** The kernel's exchange, once the stream was moved. */
  private inner: KernelExchange | undefined
  /** Bytes of the stream that came before it was moved, and that the kernel's exchange counts. */
  private handedOver = 0
  private isAborted = false
  private lastBytes = 0
  private lastUnwritten = 0
  private idleForMillis = 0

  constructor(options: Options, near: KernelSocket, far: Joinable) {
    this.options = options
    this.near = near
    this.far = far
  }
  /** Whether the stream was joined. */
  join(): boolean {
    this.stream = this.far.join(new NonBlockingSocket(this.near), this)
    return this.stream !== undefined
  }
  private end(how: Result) {
    if (this.result !== undefined) return
    this.result = how
    this.listener?.(how)
  }

  // As the stream's listener

  ended(how: StreamResult) {
    this.end(this.isAborted ? { _tag: "Aborted" } : resultOf(how))
  }
  accepts(pooled: Pooled): boolean {
    return pooled instanceof PooledConnection && socketOf(pooled) !== undefined
  }
  moved(_: NonBlocking.Connection, pooled: Pooled, unwritten: Uint8Array) {
    const { near } = this
    const abort = () => this.inner?.abort()
    const sockets = pooled instanceof PooledConnection ? detachBoth(near, pooled, unwritten, abort) : undefined
    if (!(pooled instanceof PooledConnection) || sockets === undefined) {
      pooled.reset()
      near.resetNow()
      return this.end(resetByThem)
    }
    this.handedOver = unwritten.length
    this.inner = this.options.begin(sockets)
    this.inner.onEnd((how) => {
      pooled.release()
      this.end(how)
    })
  }

  // As an exchange

  bytes(): Bytes {
    const { handedOver, stream } = this
    const moved = this.inner?.bytes()
    return {
      tx: (stream?.sentBytes ?? 0) + (moved?.tx ?? 0),
      rx: (stream?.receivedBytes ?? 0) - handedOver + (moved?.rx ?? 0)
    }
  }
  grant() {
    // Streams are not throttled: see `KernelRelay`.
  }
  path(): Path | undefined {
    return this.inner?.path()
  }
  withFar(use: (fd: number) => void) {
    this.inner?.withFar(use)
  }
  onEnd(added: (result: Result) => void) {
    this.listener = added
    if (this.result !== undefined) added(this.result)
  }
  progress(): Progress {
    return { sent: true, received: true }
  }
  undo(): boolean {
    return false
  }
  commit() {
    // Nothing is kept of a stream.
  }
  abort() {
    this.isAborted = true
    if (this.inner === undefined) this.far.resetNow()
    else this.inner.abort()
  }
  tick(millis: number) {
    const { far, inner, options } = this
    if (inner !== undefined) return inner.tick(millis)
    if (!Number.isFinite(options.idleMillis)) return
    const { rx, tx } = this.bytes()
    const bytes = rx + tx
    const unwritten = this.stream?.pending.size ?? 0
    // A slow reader takes bytes although none come.
    const isSilent = bytes === this.lastBytes && unwritten === this.lastUnwritten
    this.idleForMillis = isSilent ? this.idleForMillis + millis : 0
    this.lastBytes = bytes
    this.lastUnwritten = unwritten
    if (this.idleForMillis >= options.idleMillis) far.resetNow(StreamFrame.resets.idle)
  }
}

/** The socket of a pool connection; `undefined` where Node has it, for its TLS. */
const socketOf = ({ connection }: PooledConnection): KernelSocket | undefined => {
  const socket = KernelConnection.socketOf(connection)
  return socket?.canDetach() === true ? socket : undefined
}

/** Detaches both sockets, whose connections then reset the exchange. `unwritten` goes to `near` before what comes next. */
const detachBoth = (near: KernelSocket, pooled: PooledConnection, unwritten: Uint8Array, abort: () => void) => {
  const far = socketOf(pooled)
  if (far === undefined || !near.canDetach()) return undefined
  const successor = { close: constVoid, reset: abort }
  const [nearSocket, farSocket] = [near.detach(successor), far.detach(successor)]
  return [nearSocket, { ...farSocket, buffered: Buffer.concat([unwritten, farSocket.buffered]) }] as const
}

const resetByThem: Result = { _tag: "Broken", side: "far", operation: "read", errno: constants.errno.ECONNRESET }

const resultOf = (how: StreamResult): Result => {
  if (how._tag === "Done") return how
  if (how.by === "them") return resetByThem
  return how.code === StreamFrame.resets.idle ? { _tag: "Idle" } : { ...resetByThem, side: "near" }
}
