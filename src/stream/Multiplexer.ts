/**
 * The streams of a session over its carriers, on one side.
 *
 * Bytes go from a connection into the carrier's segments without a copy, and from the carrier into a connection with none
 * unless that is full. Credit keeps what a slow reader leaves here within its window, so that it holds up no other stream.
 */
import * as Carrier from "./Carrier.js"
import { type Connection, nothing } from "../transport/NonBlocking.js"
import type { Segment } from "./SendBuffer.js"
import * as SendBuffer from "./SendBuffer.js"
import * as StreamFrame from "./StreamFrame.js"
import { type Listener, type Pooled, type Pumps, type Result, VisitorStream } from "./VisitorStream.js"
import { firstWindow, maxWindow } from "./VisitorStream.js"

export interface Options {
  /** Which side visitors connect to: only that side opens streams, and moves them. */
  readonly visitors: "local" | "remote"
  /** The most streams at a time. */
  readonly maxStreams: number
  /** A stream that is silent for this long is reset. `Infinity` for no limit. */
  readonly idleMillis: number
  /** `turn` is to be called soon, once. */
  readonly wake: () => void
  /** The other side has opened a stream: `serve` and later `connect` or `refuse` it. */
  readonly opened: (stream: VisitorStream, payload: Uint8Array) => void
  /** A carrier lost its connection. */
  readonly lost: (carrier: Carrier.Carrier<VisitorStream>) => void
  /** A carrier has ended, and its streams were reset. `problem` is a sentence for the log. */
  readonly failed: (carrier: Carrier.Carrier<VisitorStream>, problem: string) => void
  /** Takes an idle pool connection for a stream that is moved. Defaults to never. */
  readonly takePooled?: (() => { readonly id: number; readonly pooled: Pooled } | undefined) | undefined
  /** Takes the pool connection that the other side moves a stream to. Defaults to never. */
  readonly findPooled?: ((id: number) => Pooled | undefined) | undefined
  /** Bytes, either way, after which a stream is moved. Defaults to 256 KiB, halved every second. */
  readonly moveAfterBytes?: number | undefined
}

export interface Counts {
  readonly streams: number
  readonly opened: number
  readonly moved: number
  /** Bytes that connections have not taken. */
  readonly pendingBytes: number
  /** Bytes by which windows have grown, and which may come at any time. */
  readonly grownBytes: number
}

/** What all windows of a session may have grown by together. */
export const maxGrownBytes = 64 * 1024 * 1024

export class Multiplexer implements Pumps {
  readonly options: Options
  readonly streams = new Map<number, VisitorStream>()
  readonly carriers = new Map<number, Carrier.Carrier<VisitorStream>>()
  private readonly events: Carrier.Events<VisitorStream>
  private dirty: Array<Carrier.Carrier<VisitorStream>> = []
  private carriersAgain: Array<Carrier.Carrier<VisitorStream>> = []
  private streamsAgain: Array<VisitorStream> = []
  private isAwake = false
  private lastId = 0
  /** The highest number of a carrier so far. */
  private lastCarrier = 0
  private pendingBytes = 0
  private grownBytes = 0
  private openedStreams = 0
  private movedStreams = 0
  private sinceHalved = 0
  private sweptAt: number | undefined

  constructor(options: Options) {
    this.options = options
    this.events = {
      dirty: (carrier) => {
        this.dirty.push(carrier)
        this.wake()
      },
      again: (carrier) => {
        this.carriersAgain.push(carrier)
        this.wake()
      },
      unparked: (stream) => {
        stream.isParked = false
        this.pump(stream)
      },
      data: (carrier, id, bytes, at, size) => this.deliver(carrier, id, bytes, at, size),
      control: (carrier, type, id, view, at, size) => this.control(carrier, type, id, view, at, size),
      lost: options.lost,
      failed: (carrier, problem) => {
        this.endCarrier(carrier, StreamFrame.resets.broken)
        options.failed(carrier, problem)
      }
    }
  }

  // Turns

  private wake() {
    if (this.isAwake) return
    this.isAwake = true
    this.options.wake()
  }
  /** Goes on with what was left for this turn, and writes the frames that were added. */
  turn() {
    this.isAwake = false
    const [carriers, streams] = [this.carriersAgain, this.streamsAgain]
    this.carriersAgain = []
    this.streamsAgain = []
    for (const carrier of carriers) carrier.receive()
    for (const stream of streams) {
      stream.isAgain = false
      this.pump(stream)
    }
    // A flush lets streams continue that waited for room, which adds frames.
    for (let round = 0; round < flushesPerTurn && this.dirty.length > 0; round++) {
      const { dirty } = this
      this.dirty = []
      for (const carrier of dirty) carrier.flush()
    }
    if (this.dirty.length > 0) this.wake()
  }

  // Carriers

  /** The carrier of this number, a new one if there is none. */
  carrier(number: number): Carrier.Carrier<VisitorStream> {
    const known = this.carriers.get(number)
    if (known !== undefined) return known
    this.lastCarrier = Math.max(this.lastCarrier, number)
    const carrier = new Carrier.Carrier<VisitorStream>(number, this.events)
    this.carriers.set(number, carrier)
    return carrier
  }
  /**
   * Continues this carrier over the connection that the other side has chosen for it, the `attempt`th. A carrier that is over
   * is refused.
   */
  attach(number: number, attempt: number, connection: Connection) {
    if (this.carriers.has(number) || number > this.lastCarrier) this.carrier(number).attach(connection, attempt)
    else {
      const refusal = StreamFrame.encodeAttach({ carrier: number, attempt, received: undefined })
      connection.write(refusal, 0, refusal.length)
      connection.close()
    }
  }
  /** Resets the streams of the carrier, and ends it. */
  endCarrier(carrier: Carrier.Carrier<VisitorStream>, code: number) {
    this.carriers.delete(carrier.number)
    carrier.end()
    for (const stream of this.streams.values()) {
      if (stream.carrier === carrier) this.close(stream, { _tag: "Reset", by: "them", code })
    }
  }
  /** Whether a stream can be opened that is served at once. */
  isAttached(): boolean {
    for (const { state } of this.carriers.values()) if (state === "Attached") return true
    return false
  }
  private leastLoaded(): Carrier.Carrier<VisitorStream> | undefined {
    let best: Carrier.Carrier<VisitorStream> | undefined
    for (const carrier of this.carriers.values()) {
      if (best === undefined || carrier.load() < best.load()) best = carrier
    }
    return best
  }

  // The life of a stream

  /** Opens a stream for a visitor. `undefined` when there is no carrier, or too many streams. */
  open(connection: Connection, payload: Uint8Array, listener: Listener): VisitorStream | undefined {
    const carrier = this.leastLoaded()
    if (carrier === undefined || this.streams.size >= this.options.maxStreams) return undefined
    do this.lastId = this.lastId === StreamFrame.maxStream ? 1 : this.lastId + 1
    while (this.streams.has(this.lastId))
    const stream = this.add(this.lastId, carrier)
    stream.listener = listener
    carrier.send(StreamFrame.types.open, stream.id, payload)
    this.connect(stream, connection)
    return stream
  }
  /** The stream's connection on this side is there. It is reset when the stream is over. */
  connect(stream: VisitorStream, connection: Connection) {
    if (stream.isOver) return connection.reset()
    stream.connection = connection
    connection.setOwner(stream)
    if (stream.pending.size > 0 || stream.into === "Ended") this.drain(stream)
    this.pump(stream)
  }
  /** Resets a stream, and the connection on the other side. */
  reset(stream: VisitorStream, code: number = StreamFrame.resets.broken) {
    if (stream.isOver) return
    stream.carrier.sendNumber(StreamFrame.types.reset, stream.id, code, 1)
    this.close(stream, { _tag: "Reset", by: "us", code })
  }
  /** Resets every stream. */
  resetAll(code: number = StreamFrame.resets.stopped) {
    for (const stream of this.streams.values()) this.reset(stream, code)
  }
  private add(id: number, carrier: Carrier.Carrier<VisitorStream>): VisitorStream {
    const stream = new VisitorStream(id, carrier, this)
    this.streams.set(id, stream)
    carrier.streams++
    this.openedStreams++
    return stream
  }
  private close(stream: VisitorStream, result: Result) {
    const { connection } = stream
    this.leave(stream)
    if (result._tag === "Done") connection?.close()
    else connection?.reset()
    stream.listener?.ended(result)
  }
  private leave(stream: VisitorStream) {
    stream.isOver = true
    this.streams.delete(stream.id)
    stream.carrier.streams--
    this.pendingBytes -= stream.pending.size
    this.grownBytes -= stream.window - firstWindow
    stream.pending.clear()
    stream.connection = undefined
    stream.pooled?.reset()
    stream.pooled = undefined
  }
  private closeIfDone(stream: VisitorStream) {
    if (stream.out === "Ended" && stream.into === "Done") this.close(stream, { _tag: "Done" })
  }

  // From our connection to the carrier

  pump(stream: VisitorStream) {
    for (let round = 0; stream.out === "Open" && stream.readable && !stream.isParked; round++) {
      const { carrier, connection } = stream
      if (connection === undefined || stream.credit <= 0) return
      const isBulk = stream.recentBytes >= bulkBytes
      if (!carrier.hasRoom(isBulk)) {
        stream.isParked = true
        return carrier.park(stream, isBulk)
      }
      if (round === roundsPerTurn) return this.again(stream)
      this.readOnce(stream, connection)
    }
  }
  look(stream: VisitorStream) {
    if (stream.connection !== undefined && stream.connection.read(probe, 0, probe.length) < nothing) this.reset(stream)
  }
  private again(stream: VisitorStream) {
    if (stream.isAgain) return
    stream.isAgain = true
    this.streamsAgain.push(stream)
    this.wake()
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
      this.noteBytes(stream, count)
    } else if (count === 0) {
      stream.out = "Ended"
      carrier.send(StreamFrame.types.end, stream.id)
      this.closeIfDone(stream)
    } else if (count === nothing) stream.readable = false
    else this.reset(stream)
  }

  // From the carrier to our connection

  private deliver(
    carrier: Carrier.Carrier<VisitorStream>,
    id: number,
    bytes: Uint8Array,
    at: number,
    size: number
  ): string | undefined {
    const stream = this.streams.get(id)
    // It was reset here, and they do not know yet.
    if (stream === undefined) return undefined
    if (stream.carrier !== carrier) return `data of stream ${id}, which is on another carrier`
    if (stream.into !== "Open") return `data of stream ${id} after its end`
    if (size > stream.granted) return `data of stream ${id} beyond its window`
    stream.granted -= size
    stream.receivedBytes += size
    this.noteBytes(stream, size)
    let taken = 0
    if (stream.pending.size === 0 && stream.connection !== undefined) {
      taken = stream.connection.write(bytes, at, size)
      if (taken < 0) {
        this.reset(stream)
        return undefined
      }
    }
    if (taken < size) {
      stream.pending.add(bytes, at + taken, at + size)
      this.pendingBytes += size - taken
    }
    if (taken > 0) this.grant(stream, taken)
    return undefined
  }
  drain(stream: VisitorStream) {
    const { connection, pending } = stream
    if (connection === undefined) return
    const taken = pending.flush(connection)
    if (taken < 0) return this.reset(stream)
    this.pendingBytes -= taken
    if (taken > 0) {
      stream.isActive = true
      this.grant(stream, taken)
    }
    if (pending.size === 0 && stream.into === "Ended") this.endInto(stream)
  }
  private endInto(stream: VisitorStream) {
    stream.into = "Done"
    if (stream.out !== "Ended") stream.connection?.shutdown()
    this.closeIfDone(stream)
  }
  /** Our connection took bytes: once that is half of the window, they may send more; twice as much if it keeps up. */
  private grant(stream: VisitorStream, taken: number) {
    stream.owed += taken
    if (stream.owed < stream.window / 2 || stream.into !== "Open") return
    const keepsUp = stream.pending.size === 0 && stream.window < maxWindow
    const growth = keepsUp && this.grownBytes + stream.window <= maxGrownBytes ? stream.window : 0
    stream.window += growth
    this.grownBytes += growth
    const credit = stream.owed + growth
    stream.owed = 0
    stream.granted += credit
    stream.carrier.sendNumber(StreamFrame.types.credit, stream.id, credit, 4)
  }

  // Frames

  private control(
    carrier: Carrier.Carrier<VisitorStream>,
    type: number,
    id: number,
    view: DataView,
    at: number,
    size: number
  ): string | undefined {
    if (type === StreamFrame.types.open) return this.openedByPeer(carrier, id, view, at, size)
    const stream = this.streams.get(id)
    if (stream === undefined) return undefined
    if (stream.carrier !== carrier) return `a frame of stream ${id}, which is on another carrier`
    switch (type) {
      case StreamFrame.types.end:
        if (stream.into !== "Open") return `a second end of stream ${id}`
        stream.into = "Ended"
        if (stream.pending.size === 0 && stream.connection !== undefined) this.endInto(stream)
        return undefined
      case StreamFrame.types.reset:
        this.close(stream, { _tag: "Reset", by: "them", code: view.getUint8(at) })
        return undefined
      case StreamFrame.types.credit:
        stream.credit += view.getUint32(at)
        if (stream.credit > maxWindow) return `credit of stream ${id} beyond the largest window`
        this.pump(stream)
        return undefined
      case StreamFrame.types.move:
        return this.movedByPeer(stream, view.getUint32(at), StreamFrame.getUint48(view, at + 4))
      case StreamFrame.types.moved:
        return this.moveAgreed(stream, StreamFrame.getUint48(view, at))
      case StreamFrame.types.stay:
        return this.moveRefused(stream)
      default:
        return `a frame of type ${type} for a stream`
    }
  }
  private openedByPeer(
    carrier: Carrier.Carrier<VisitorStream>,
    id: number,
    view: DataView,
    at: number,
    size: number
  ): string | undefined {
    if (this.options.visitors === "local") return "an open frame from the side of the targets"
    if (id === 0 || this.streams.has(id)) return `an open frame for stream ${id}`
    const stream = this.add(id, carrier)
    if (this.streams.size > this.options.maxStreams) this.reset(stream, StreamFrame.resets.slots)
    else {
      const begin = view.byteOffset + at
      this.options.opened(stream, new Uint8Array(view.buffer.slice(begin, begin + size)))
    }
    return undefined
  }

  // Moving a stream to a pool connection of its own

  private noteBytes(stream: VisitorStream, bytes: number) {
    stream.isActive = true
    stream.recentBytes += bytes
    if (stream.mayMove && stream.recentBytes >= (this.options.moveAfterBytes ?? bulkMoveBytes)) this.move(stream)
  }
  private move(stream: VisitorStream) {
    const { takePooled, visitors } = this.options
    if (visitors === "remote" || takePooled === undefined || stream.out !== "Open" || stream.into !== "Open") return
    const taken = takePooled()
    if (taken === undefined) return
    stream.mayMove = false
    stream.out = "Moving"
    stream.pooled = taken.pooled
    const payload = new Uint8Array(10)
    const view = new DataView(payload.buffer)
    view.setUint32(0, taken.id)
    StreamFrame.setUint48(view, 4, stream.sentBytes)
    stream.carrier.send(StreamFrame.types.move, stream.id, payload)
  }
  private movedByPeer(stream: VisitorStream, poolId: number, offset: number): string | undefined {
    if (this.options.visitors === "local") return "a move frame from the side of the targets"
    if (offset !== stream.receivedBytes || stream.into !== "Open") return `a move of stream ${stream.id} at ${offset}`
    const pooled =
      stream.out === "Open" && stream.connection !== undefined ? this.options.findPooled?.(poolId) : undefined
    if (pooled === undefined) {
      stream.carrier.send(StreamFrame.types.stay, stream.id)
      return undefined
    }
    stream.carrier.sendNumber(StreamFrame.types.moved, stream.id, stream.sentBytes, 6)
    this.continueOver(stream, pooled)
    return undefined
  }
  private moveAgreed(stream: VisitorStream, offset: number): string | undefined {
    const { pooled } = stream
    if (stream.out !== "Moving" || stream.into !== "Open" || pooled === undefined || offset !== stream.receivedBytes) {
      return `an answer to no move of stream ${stream.id}`
    }
    stream.pooled = undefined
    this.continueOver(stream, pooled)
    return undefined
  }
  private moveRefused(stream: VisitorStream): string | undefined {
    if (stream.out !== "Moving") return `an answer to no move of stream ${stream.id}`
    stream.pooled?.reset()
    stream.pooled = undefined
    stream.out = "Open"
    this.pump(stream)
    return undefined
  }
  private continueOver(stream: VisitorStream, pooled: Pooled) {
    const { connection, listener } = stream
    this.pendingBytes -= stream.pending.size
    const unwritten = stream.pending.takeAll()
    this.leave(stream)
    this.movedStreams++
    if (connection === undefined || listener === undefined) pooled.reset()
    else listener.moved(connection, pooled, unwritten)
  }

  // Periodic work

  /** Call it several times a second. `lostAfterMillis`: see `Carrier.sweep`. */
  sweep(now: number, lostAfterMillis: number) {
    for (const carrier of this.carriers.values()) carrier.sweep(now, lostAfterMillis)
    const millis = now - (this.sweptAt ?? now)
    this.sweptAt = now
    this.sinceHalved += millis
    const halvings = Math.floor(this.sinceHalved / 1000)
    this.sinceHalved -= halvings * 1000
    for (const stream of this.streams.values()) {
      stream.recentBytes /= 2 ** halvings
      stream.idleMillis = stream.isActive ? 0 : stream.idleMillis + millis
      stream.isActive = false
      if (stream.idleMillis >= this.options.idleMillis) this.reset(stream, StreamFrame.resets.idle)
    }
  }
  counts(): Counts {
    return {
      streams: this.streams.size,
      opened: this.openedStreams,
      moved: this.movedStreams,
      pendingBytes: this.pendingBytes,
      grownBytes: this.grownBytes
    }
  }
}

// internal

/** A stream with more recent bytes than this waits for streams with fewer. */
const bulkBytes = 64 * 1024
const bulkMoveBytes = 256 * 1024

/** Reads of a stream before it is the turn of others. */
const roundsPerTurn = 2
const flushesPerTurn = 4

const probe = new Uint8Array(1)

/** A segment with less room than this is not read into. */
const leastRead = 1024

const readSize = (segment: Segment, credit: number): number =>
  Math.min(SendBuffer.segmentBytes - segment.used - StreamFrame.headerBytes, StreamFrame.maxDataBytes, credit)
