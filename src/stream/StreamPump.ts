/**
 * Moves the bytes of streams.
 *
 * They go from a connection into the carrier's segments without a copy, and from the carrier into a connection with none
 * unless that is full. Credit keeps what a slow reader leaves here within its window, so that it holds up no other stream.
 */
import { type Connection, nothing } from "../transport/NonBlocking.js"
import type { Segment } from "./SendBuffer.js"
import * as SendBuffer from "./SendBuffer.js"
import * as StreamFrame from "./StreamFrame.js"
import type { StreamMove } from "./StreamMove.js"
import type { StreamTable } from "./StreamTable.js"
import { maxWindow, type Pumps, type VisitorStream } from "./VisitorStream.js"

/** What all windows of a session may have grown by together. */
export const maxGrownBytes = 64 * 1024 * 1024

export class StreamPump implements Pumps {
  private readonly table: StreamTable
  private readonly mover: StreamMove
  private readonly wake: () => void
  /** Streams that may go on in the next turn. */
  private waiting: Array<VisitorStream> = []

  /** `wake`: there is work for the next turn. */
  constructor(table: StreamTable, mover: StreamMove, wake: () => void) {
    this.table = table
    this.mover = mover
    this.wake = wake
  }

  // From our connection to the carrier

  pump(stream: VisitorStream) {
    for (let round = 0; stream.out === "Open" && stream.readable && !stream.isParked; round++) {
      const { carrier, connection } = stream
      if (connection === undefined) return
      const isBulk = stream.recentBytes >= bulkBytes
      const hasCredit = stream.credit > 0
      if (stream.isBroken && !(hasCredit && carrier.hasRoom(isBulk))) return this.broken(stream)
      if (!hasCredit) return
      if (!carrier.hasRoom(isBulk)) {
        stream.isParked = true
        return carrier.park(stream, isBulk)
      }
      if (round === roundsPerTurn) return this.waitForTurn(stream)
      this.readOnce(stream, connection)
    }
  }
  private waitForTurn(stream: VisitorStream) {
    if (stream.isAgain) return
    stream.isAgain = true
    this.waiting.push(stream)
    this.wake()
  }
  /** Goes on with the streams that had to let others go first. */
  turn() {
    const { waiting } = this
    if (waiting.length === 0) return
    this.waiting = []
    for (const stream of waiting) {
      stream.isAgain = false
      this.pump(stream)
    }
  }
  private readOnce(stream: VisitorStream, connection: Connection) {
    const { carrier } = stream
    const segment = carrier.roomForData(leastRead)
    const at = segment.used + StreamFrame.headerBytes
    const count = connection.read(segment.bytes, at, readSize(segment, stream.credit))
    if (count > 0) {
      carrier.commitData(segment, stream.id, count)
      stream.credit -= count
      stream.sentBytes += count
      this.mover.note(stream, count)
    } else if (count === 0) {
      stream.out = "Ended"
      carrier.send(StreamFrame.types.end, stream.id)
      this.closeIfDone(stream)
    } else if (count === nothing) stream.readable = false
    else this.broken(stream)
  }
  /** A `credit` frame has come. Returns what is wrong with it, or `undefined`. */
  credited(stream: VisitorStream, bytes: number): string | undefined {
    stream.credit += bytes
    if (stream.credit > maxWindow) return `credit of stream ${stream.id} beyond the largest window`
    this.pump(stream)
    return undefined
  }
  look(stream: VisitorStream) {
    if (stream.connection !== undefined && stream.connection.read(probe, 0, probe.length) < nothing) this.broken(stream)
  }
  failed(stream: VisitorStream) {
    stream.isBroken = true
    stream.readable = true
    if (stream.out !== "Open" || stream.isParked) this.broken(stream)
    else this.pump(stream)
  }
  private broken(stream: VisitorStream) {
    this.table.reset(stream, StreamFrame.resets.broken)
  }

  // From the carrier to our connection

  /** A part of a `data` frame has come. Returns what is wrong with it, or `undefined`. */
  deliver(stream: VisitorStream, bytes: Uint8Array, at: number, size: number): string | undefined {
    if (stream.into !== "Open") return `data of stream ${stream.id} after its end`
    if (size > stream.granted) return `data of stream ${stream.id} beyond its window`
    stream.granted -= size
    stream.receivedBytes += size
    let taken = 0
    if (stream.pending.size === 0 && stream.connection !== undefined) {
      taken = stream.connection.write(bytes, at, size)
      if (taken < 0) {
        this.broken(stream)
        return undefined
      }
    }
    if (taken < size) {
      stream.pending.add(bytes, at + taken, at + size)
      this.table.pendingBytes += size - taken
    }
    if (taken > 0) this.grant(stream, taken)
    this.mover.note(stream, size)
    return undefined
  }
  drain(stream: VisitorStream) {
    const { connection, pending } = stream
    if (connection === undefined) return
    const taken = pending.flush(connection)
    if (taken < 0) return this.broken(stream)
    this.table.pendingBytes -= taken
    if (taken > 0) {
      stream.isActive = true
      this.grant(stream, taken)
    }
    if (pending.size === 0 && stream.into === "Ended") this.endInto(stream)
  }
  /** Their end has come, and our connection has taken all that came before. */
  endInto(stream: VisitorStream) {
    stream.into = "Done"
    if (stream.out !== "Ended") stream.connection?.shutdown()
    this.closeIfDone(stream)
  }
  private closeIfDone(stream: VisitorStream) {
    if (stream.out === "Ended" && stream.into === "Done") this.table.close(stream, { _tag: "Done" })
  }
  /** Our connection took bytes: once that is half of the window, they may send more; twice as much if it keeps up. */
  private grant(stream: VisitorStream, taken: number) {
    stream.owed += taken
    if (stream.owed < stream.window / 2 || stream.into !== "Open") return
    const keepsUp = stream.pending.size === 0 && stream.window < maxWindow
    const growth = keepsUp && this.table.grownBytes + stream.window <= maxGrownBytes ? stream.window : 0
    stream.window += growth
    this.table.grownBytes += growth
    const credit = stream.owed + growth
    stream.owed = 0
    stream.granted += credit
    stream.carrier.sendNumber(StreamFrame.types.credit, stream.id, credit, 4)
  }
}

// internal

/** A stream with more recent bytes than this waits for streams with fewer. */
const bulkBytes = 16 * 1024

/** Reads of a stream before it is the turn of others. */
const roundsPerTurn = 2

const probe = new Uint8Array(1)

/** A segment with less room than this is not read into. */
const leastRead = 1024

const readSize = (segment: Segment, credit: number): number =>
  Math.min(SendBuffer.segmentBytes - segment.used - StreamFrame.headerBytes, StreamFrame.maxDataBytes, credit)
