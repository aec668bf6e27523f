/**
 * An exchange between a socket and a stream: the multiplexer of the stream moves the bytes, without a fiber. When the stream
 * has become bulk, and is moved to a pool connection, the kernel moves them.
 */
import { constVoid } from "effect/Function"
import { constants } from "node:os"
import type * as NonBlocking from "../../transport/NonBlocking.js"
import type { Path } from "../../relay/Relay.js"
import type { StreamConnection } from "../../stream/StreamConnection.js"
import * as StreamFrame from "../../stream/StreamFrame.js"
import { PooledConnection } from "../../stream/PooledConnection.js"
import type { Pooled, Result as StreamResult } from "../../stream/VisitorStream.js"
import * as KernelConnection from "./KernelConnection.js"
import type { KernelExchange, Result } from "./KernelExchange.js"
import type { KernelSocket } from "./KernelSocket.js"
import { NonBlockingSocket } from "./NonBlockingSocket.js"
import type { DetachedSocket } from "./reactor/ReactorMessages.js"

export interface Options {
  /** Infinity for no limit. */
  readonly idleMillis: number
  /** Begins an exchange of sockets, for a stream that was moved. */
  readonly begin: (sockets: readonly [near: DetachedSocket, far: DetachedSocket]) => KernelExchange
}

/** Returns what begins an exchange; `undefined` when the connection of the stream has to be copied by fibers. */
export const make =
  ({ begin, idleMillis }: Options) =>
  (near: KernelSocket, far: StreamConnection): KernelExchange | undefined => {
    let listener: ((result: Result) => void) | undefined
    let result: Result | undefined
    let inner: KernelExchange | undefined
    /** Bytes of the stream that came before it was moved, and that the kernel's exchange counts. */
    let handedOver = 0
    let isAborted = false
    let last = { bytes: 0, unwritten: 0 }
    let idleForMillis = 0

    const end = (how: Result) => {
      if (result !== undefined) return
      result = how
      listener?.(how)
    }
    const move = (_: NonBlocking.Connection, pooled: Pooled, unwritten: Uint8Array) => {
      const abort = () => inner?.abort()
      const sockets = pooled instanceof PooledConnection ? detachBoth(near, pooled, unwritten, abort) : undefined
      if (!(pooled instanceof PooledConnection) || sockets === undefined) {
        pooled.reset()
        near.resetNow()
        return end(resetByThem)
      }
      handedOver = unwritten.length
      inner = begin(sockets)
      inner.onEnd((how) => {
        pooled.release()
        end(how)
      })
    }
    const stream = far.join(new NonBlockingSocket(near), {
      ended: (how) => end(isAborted ? { _tag: "Aborted" } : resultOf(how)),
      moved: move,
      accepts: (pooled) => pooled instanceof PooledConnection && socketOf(pooled) !== undefined
    })
    if (stream === undefined) return undefined
    const bytes = () => {
      const moved = inner?.bytes()
      return { tx: stream.sentBytes + (moved?.tx ?? 0), rx: stream.receivedBytes - handedOver + (moved?.rx ?? 0) }
    }
    return {
      bytes,
      // Streams are not throttled: see `KernelRelay`.
      grant: constVoid,
      path: (): Path | undefined => inner?.path(),
      withFar: (use) => inner?.withFar(use),
      onEnd: (added) => {
        listener = added
        if (result !== undefined) added(result)
      },
      progress: () => ({ sent: true, received: true }),
      undo: () => false,
      commit: constVoid,
      abort: () => {
        isAborted = true
        if (inner === undefined) far.resetNow()
        else inner.abort()
      },
      tick: (millis) => {
        if (inner !== undefined) return inner.tick(millis)
        const { rx, tx } = bytes()
        const now = { bytes: rx + tx, unwritten: stream.pending.size }
        // A slow reader takes bytes although none come.
        const isSilent = now.bytes === last.bytes && now.unwritten === last.unwritten
        idleForMillis = isSilent ? idleForMillis + millis : 0
        last = now
        if (idleForMillis >= idleMillis) far.resetNow(StreamFrame.resets.idle)
      }
    }
  }

// internal

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
