/**
 * The streams of a session over its carriers, on one side.
 */
import type { Connection } from "../transport/NonBlocking.js"
import * as Carrier from "./Carrier.js"
import { RefusedAttach } from "./RefusedAttach.js"
import * as StreamFrame from "./StreamFrame.js"
import * as StreamMove from "./StreamMove.js"
import { StreamPump } from "./StreamPump.js"
import { type Counts, StreamTable } from "./StreamTable.js"
import type { Listener, VisitorStream } from "./VisitorStream.js"

export interface Options extends StreamMove.Options {
  /** The most streams at a time. */
  readonly maxStreams: number
  /** A stream that is silent for this long is reset. `Infinity` for no limit. */
  readonly idleMillis: number
  /** `turn` is to be called soon, once. */
  readonly wake: () => void
  /** The other side has opened a stream: set its `listener` at once, and later `connect` or `reset` it. */
  readonly opened: (stream: VisitorStream, payload: Uint8Array) => void
  /** A carrier lost its connection. */
  readonly lost: (carrier: Carrier.Carrier<VisitorStream>, how: Carrier.Loss) => void
  /** A carrier has ended, and its streams were reset. `problem` is a sentence for the log. */
  readonly failed: (carrier: Carrier.Carrier<VisitorStream>, problem: string) => void
}

/** The most carriers at a time. */
export const maxCarriers = 16

export class Multiplexer {
  readonly options: Options
  readonly carriers = new Map<number, Carrier.Carrier<VisitorStream>>()
  readonly table = new StreamTable()
  private readonly mover: StreamMove.StreamMove
  private readonly pump: StreamPump
  private readonly events: Carrier.Events<VisitorStream>
  private dirty: Array<Carrier.Carrier<VisitorStream>> = []
  private unread: Array<Carrier.Carrier<VisitorStream>> = []
  private isAwake = false
  /** Numbers of carriers that have ended: the last ones, and the highest of those that were forgotten. */
  private readonly ended = new Set<number>()
  private endedUpTo = 0
  private refused: Array<RefusedAttach> = []
  private sinceHalved = 0
  private sweptAt: number | undefined

  constructor(options: Options) {
    this.options = options
    this.mover = new StreamMove.StreamMove(this.table, options)
    this.pump = new StreamPump(this.table, this.mover, () => this.wake())
    this.events = {
      dirty: (carrier) => {
        this.dirty.push(carrier)
        this.wake()
      },
      again: (carrier) => {
        this.unread.push(carrier)
        this.wake()
      },
      unparked: (stream) => {
        stream.isParked = false
        this.pump.pump(stream)
      },
      data: (carrier, id, bytes, at, size) => {
        const stream = this.table.byId.get(id)
        // It was reset here, and they do not know yet.
        if (stream === undefined) return undefined
        if (stream.carrier !== carrier) return `data of stream ${id}, which is on another carrier`
        return this.pump.deliver(stream, bytes, at, size)
      },
      control: (carrier, type, id, view, at, size) => this.control(carrier, type, id, view, at, size),
      lost: (carrier, how) => {
        // What has swallowed one connection has probably swallowed all.
        if (how === "Silent") for (const other of this.carriers.values()) other.probe()
        options.lost(carrier, how)
      },
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
    const { unread } = this
    if (unread.length > 0) {
      this.unread = []
      for (const carrier of unread) carrier.resume()
    }
    this.pump.turn()
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
    const carrier = new Carrier.Carrier<VisitorStream>(number, this.events)
    this.carriers.set(number, carrier)
    return carrier
  }
  /**
   * Continues this carrier over the connection that the other side has chosen for it, the `attempt`th. A carrier that is over
   * is refused, and a new one when there are `maxCarriers`.
   */
  attach(number: number, attempt: number, connection: Connection) {
    if (this.carriers.has(number) || this.mayBegin(number)) this.carrier(number).attach(connection, attempt)
    else if (this.refused.length >= maxCarriers) connection.reset()
    else this.refused.push(new RefusedAttach(connection, number, attempt))
  }
  private mayBegin(number: number): boolean {
    return this.carriers.size < maxCarriers && number > this.endedUpTo && !this.ended.has(number)
  }
  /** Resets the streams of the carrier, and ends it. */
  endCarrier(carrier: Carrier.Carrier<VisitorStream>, code: number) {
    if (carrier.state === "Over") return
    this.carriers.delete(carrier.number)
    this.ended.add(carrier.number)
    if (this.ended.size > maxEnded) {
      const lowest = Math.min(...this.ended)
      this.ended.delete(lowest)
      this.endedUpTo = Math.max(this.endedUpTo, lowest)
    }
    carrier.end()
    this.table.closeAll(carrier, code)
  }
  /** The other side's process has ended: ends every carrier, and forgets their numbers, which the next process does not know. */
  restart() {
    for (const carrier of Array.from(this.carriers.values())) this.endCarrier(carrier, StreamFrame.resets.broken)
    this.ended.clear()
    this.endedUpTo = 0
  }
  /** Whether a stream can be opened that is served at once. */
  isAttached(): boolean {
    for (const { state } of this.carriers.values()) if (state === "Attached") return true
    return false
  }
  private leastLoaded(): Carrier.Carrier<VisitorStream> | undefined {
    let best: Carrier.Carrier<VisitorStream> | undefined
    let least = Infinity
    for (const carrier of this.carriers.values()) {
      const load = carrier.load()
      if (load >= least || carrier.isFull()) continue
      best = carrier
      least = load
    }
    return best
  }

  // The life of a stream

  /**
   * Opens a stream for a visitor. `undefined` when there is no carrier that takes it, or there are too many streams: the
   * connection is the caller's then. The payload has `StreamFrame.maxOpenBytes` at most.
   */
  open(connection: Connection, payload: Uint8Array, listener: Listener): VisitorStream | undefined {
    if (payload.length > StreamFrame.maxOpenBytes) throw new RangeError(`an open frame of ${payload.length} bytes`)
    const carrier = this.leastLoaded()
    if (carrier === undefined || this.table.byId.size >= this.options.maxStreams) return undefined
    const stream = this.table.add(this.table.nextId(), carrier, this.pump)
    stream.listener = listener
    carrier.send(StreamFrame.types.open, stream.id, payload)
    this.connect(stream, connection)
    return stream
  }
  /** The stream's connection on this side is there, or takes the place of another. It is reset when the stream is over. */
  connect(stream: VisitorStream, connection: Connection) {
    if (stream.isOver) return connection.reset()
    stream.connection = connection
    stream.readable = true
    stream.isBroken = false
    connection.setOwner(stream)
    if (stream.pending.size > 0 || stream.into === "Ended") this.pump.drain(stream)
    this.pump.pump(stream)
  }
  /** Resets a stream, and the connection on the other side. */
  reset(stream: VisitorStream, code: number = StreamFrame.resets.broken) {
    this.table.reset(stream, code)
  }
  /** Resets every stream that is open now. */
  resetAll(code: number = StreamFrame.resets.stopped) {
    for (const stream of Array.from(this.table.byId.values())) this.table.reset(stream, code)
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
    const stream = this.table.byId.get(id)
    if (stream === undefined) return undefined
    if (stream.carrier !== carrier) return `a frame of stream ${id}, which is on another carrier`
    switch (type) {
      case StreamFrame.types.end:
        if (stream.into !== "Open") return `a second end of stream ${id}`
        stream.into = "Ended"
        if (stream.pending.size === 0 && stream.connection !== undefined) this.pump.endInto(stream)
        return undefined
      case StreamFrame.types.reset:
        this.table.close(stream, { _tag: "Reset", by: "them", code: view.getUint8(at) })
        return undefined
      case StreamFrame.types.credit:
        return this.pump.credited(stream, view.getUint32(at))
      case StreamFrame.types.move:
        return this.mover.asked(stream, view.getUint32(at), StreamFrame.getUint48(view, at + 4))
      case StreamFrame.types.moved:
        return this.mover.agreed(stream, StreamFrame.getUint48(view, at))
      case StreamFrame.types.stay: {
        const problem = this.mover.refused(stream)
        if (problem === undefined) this.pump.pump(stream)
        return problem
      }
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
    if (id === 0 || this.table.byId.has(id)) return `an open frame for stream ${id}`
    if (this.table.byId.size >= this.options.maxStreams) {
      carrier.sendNumber(StreamFrame.types.reset, id, StreamFrame.resets.slots, 1)
      return undefined
    }
    const begin = view.byteOffset + at
    const payload = new Uint8Array(view.buffer.slice(begin, begin + size))
    this.options.opened(this.table.add(id, carrier, this.pump), payload)
    return undefined
  }

  // Periodic work

  /** Call it several times a second. `lostAfterMillis`: see `Carrier.sweep`. */
  sweep(now: number, lostAfterMillis: number) {
    for (const carrier of this.carriers.values()) carrier.sweep(now, lostAfterMillis)
    for (const refused of this.refused) refused.sweep(now, lostAfterMillis)
    this.mover.sweep(now, lostAfterMillis)
    if (this.refused.length > 0) this.refused = this.refused.filter(({ isOver }) => !isOver)
    const millis = now - (this.sweptAt ?? now)
    this.sweptAt = now
    this.sinceHalved += millis
    const halvings = Math.floor(this.sinceHalved / 1000)
    this.sinceHalved -= halvings * 1000
    const share = 2 ** -halvings
    for (const stream of this.table.byId.values()) {
      stream.recentBytes *= share
      if (halvings > 0 && stream.move === "Later") stream.move = "May"
      stream.idleMillis = stream.isActive ? 0 : stream.idleMillis + millis
      stream.isActive = false
      if (stream.idleMillis >= this.options.idleMillis) this.table.reset(stream, StreamFrame.resets.idle)
    }
  }
  /** Whether `sweep` has nothing to do until `wake` or `lost` is called. */
  isQuiet(): boolean {
    if (this.table.byId.size > 0 || this.refused.length > 0) return false
    for (const carrier of this.carriers.values()) if (!carrier.isQuiet()) return false
    return true
  }
  counts(): Counts {
    return this.table.counts()
  }
}

// internal

const flushesPerTurn = 4

/** How many carriers that have ended are remembered one by one. */
const maxEnded = 64
