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
    let isAborted = false
    let lastBytes = 0
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
      inner = begin(sockets)
      inner.onEnd((how) => {
        pooled.release()
        end(how)
      })
    }
    const stream = far.join(new NonBlockingSocket(near), {
      ended: (how) => end(isAborted ? { _tag: "Aborted" } : resultOf(how)),
      moved: move
    })
    if (stream === undefined) return undefined
    const bytes = () => {
      const moved = inner?.bytes()
      return { tx: stream.sentBytes + (moved?.tx ?? 0), rx: stream.receivedBytes + (moved?.rx ?? 0) }
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
        idleForMillis = rx + tx === lastBytes ? idleForMillis + millis : 0
        lastBytes = rx + tx
        if (idleForMillis >= idleMillis) far.resetNow(StreamFrame.resets.idle)
      }
    }
  }

// internal

/** Detaches both sockets, whose connections then reset the exchange. `unwritten` goes to `near` before what comes next. */
const detachBoth = (near: KernelSocket, { connection }: PooledConnection, unwritten: Uint8Array, abort: () => void) => {
  const far = KernelConnection.socketOf(connection)
  if (far?.canDetach() !== true || !near.canDetach()) return undefined
  const successor = { close: constVoid, reset: abort }
  const [nearSocket, farSocket] = [near.detach(successor), far.detach(successor)]
  return [nearSocket, { ...farSocket, buffered: Buffer.concat([unwritten, farSocket.buffered]) }] as const
}

const resetByThem: Result = { _tag: "Broken", side: "far", operation: "read", errno: constants.errno.ECONNRESET }

const resultOf = (how: StreamResult): Result => {
  if (how._tag === "Done") return how
  if (how.code === StreamFrame.resets.idle) return { _tag: "Idle" }
  return how.by === "them" ? resetByThem : { ...resetByThem, side: "near" }
}
