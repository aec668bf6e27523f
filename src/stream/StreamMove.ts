/**
 * Moves a stream to a pool connection of its own, once it shows bulk.
 *
 * The side of the visitors asks with `move`, and sends nothing more on the carrier. The other answers with `moved`, its last
 * frame of the stream, or `stay`. The frames of a carrier are in order, so that both sides know what came before.
 */
import * as StreamFrame from "./StreamFrame.js"
import type { StreamTable } from "./StreamTable.js"
import type { Pooled, VisitorStream } from "./VisitorStream.js"

export interface Options {
  /** Which side visitors connect to: only that side opens streams, and moves them. */
  readonly visitors: "local" | "remote"
  /** Takes an idle pool connection for a stream that is moved. Defaults to never. */
  readonly takePooled?: (() => { readonly id: number; readonly pooled: Pooled } | undefined) | undefined
  /** Takes the pool connection that the other side moves a stream to. Defaults to never. */
  readonly findPooled?: ((id: number) => Pooled | undefined) | undefined
  /** A stream was reset because the other side has not answered its move. Defaults to nothing. */
  readonly unanswered?: ((stream: VisitorStream) => void) | undefined
  /** Bytes, either way, after which a stream is moved. Defaults to 256 KiB, halved every second. */
  readonly moveAfterBytes?: number | undefined
}

export class StreamMove {
  private readonly table: StreamTable
  private readonly options: Options
  private readonly afterBytes: number
  /** Streams that wait for the answer to a move. */
  private readonly moving = new Map<VisitorStream, Moving>()

  constructor(table: StreamTable, options: Options) {
    this.table = table
    this.options = options
    const canMove = options.visitors === "local" && options.takePooled !== undefined
    this.afterBytes = canMove ? (options.moveAfterBytes ?? bulkMoveBytes) : Infinity
  }

  /** The stream has passed so many bytes. */
  note(stream: VisitorStream, bytes: number) {
    stream.isActive = true
    stream.recentBytes += bytes
    if (stream.recentBytes >= this.afterBytes && stream.move === "May") this.ask(stream)
  }
  private ask(stream: VisitorStream) {
    if (stream.isOver || stream.out !== "Open" || stream.into !== "Open") return
    if (stream.listener?.moved === undefined) return
    const taken = this.options.takePooled?.()
    if (taken === undefined) {
      stream.move = "Later"
      return
    }
    stream.move = "Never"
    if (stream.listener.accepts?.(taken.pooled) === false) return taken.pooled.reset()
    stream.out = "Moving"
    stream.pooled = taken.pooled
    const payload = new Uint8Array(10)
    const view = new DataView(payload.buffer)
    view.setUint32(0, taken.id)
    StreamFrame.setUint48(view, 4, stream.sentBytes)
    stream.carrier.send(StreamFrame.types.move, stream.id, payload)
    this.moving.set(stream, { offset: stream.carrier.buffer.end, since: undefined })
  }
  /**
   * Resets the streams whose move the other side has received and does not answer, so that none holds its pool connection for
   * ever. The time counts while the carrier is attached: an answer may have been lost with a connection.
   */
  sweep(now: number, limitMillis: number) {
    for (const [stream, moving] of this.moving) {
      const { carrier } = stream
      if (stream.isOver || stream.out !== "Moving") this.moving.delete(stream)
      else if (carrier.state !== "Attached" || carrier.buffer.acknowledged < moving.offset) moving.since = undefined
      else if (now - (moving.since ??= now) >= limitMillis * answerLimits) {
        this.moving.delete(stream)
        this.table.reset(stream, StreamFrame.resets.broken)
        this.options.unanswered?.(stream)
      }
    }
  }

  /** A `move` frame has come. Returns what is wrong with it, or `undefined`. */
  asked(stream: VisitorStream, poolId: number, offset: number): string | undefined {
    if (this.options.visitors === "local") return "a move frame from the side of the targets"
    if (offset !== stream.receivedBytes % StreamFrame.uint48s || stream.into !== "Open") {
      return `a move of stream ${stream.id} at ${offset}`
    }
    const canMove = stream.out === "Open" && stream.connection !== undefined && stream.listener?.moved !== undefined
    const pooled = canMove ? this.options.findPooled?.(poolId) : undefined
    if (pooled === undefined || stream.listener?.accepts?.(pooled) === false) {
      pooled?.reset()
      stream.carrier.send(StreamFrame.types.stay, stream.id)
    } else {
      stream.carrier.sendNumber(StreamFrame.types.moved, stream.id, stream.sentBytes, 6)
      this.continueOver(stream, pooled)
    }
    return undefined
  }
  /** A `moved` frame has come. */
  agreed(stream: VisitorStream, offset: number): string | undefined {
    const { pooled } = stream
    const isExpected = stream.out === "Moving" && stream.into === "Open" && pooled !== undefined
    if (!isExpected || offset !== stream.receivedBytes % StreamFrame.uint48s) {
      return `an answer to no move of stream ${stream.id}`
    }
    stream.pooled = undefined
    this.continueOver(stream, pooled)
    return undefined
  }
  /** A `stay` frame has come: the stream goes on over its carrier. */
  refused(stream: VisitorStream): string | undefined {
    if (stream.out !== "Moving") return `an answer to no move of stream ${stream.id}`
    stream.pooled?.reset()
    stream.pooled = undefined
    stream.out = "Open"
    return undefined
  }
  private continueOver(stream: VisitorStream, pooled: Pooled) {
    const { connection, listener, pending } = stream
    this.table.pendingBytes -= pending.size
    const unwritten = pending.takeAll()
    this.table.leave(stream)
    this.table.moved++
    if (connection !== undefined && listener?.moved !== undefined) return listener.moved(connection, pooled, unwritten)
    pooled.reset()
    connection?.reset()
  }
}

// internal

const bulkMoveBytes = 256 * 1024

interface Moving {
  /** Behind its `move` frame. */
  readonly offset: number
  /** When the other side was found to have it. */
  since: number | undefined
}

/** How many limits the answer to a move may take. It waits behind other frames, as acknowledgements do. */
const answerLimits = 16
