/**
 * A carrier: an ordered flow of frames in each direction, which outlives its connections. When one is lost, the flow goes on
 * over the next, from the first byte that did not arrive. Its streams are not affected.
 */
import type * as NonBlocking from "../transport/NonBlocking.js"
import { broken, nothing } from "../transport/NonBlocking.js"
import { AttachExchange } from "./AttachExchange.js"
import { CarrierWatch } from "./CarrierWatch.js"
import * as FrameReader from "./FrameReader.js"
import { ParkedStreams } from "./ParkedStreams.js"
import { SendBuffer } from "./SendBuffer.js"
import * as StreamFrame from "./StreamFrame.js"

/** How a connection was lost: it failed or ended, or it passed nothing, and no side was told. */
export type Loss = "Broken" | "Silent"

/** What a carrier tells its owner, the multiplexer. `S`: its streams. */
export interface Events<S> {
  /** Frames were added: `flush` is to be called soon. */
  readonly dirty: (carrier: Carrier<S>) => void
  /** There is more to read: `resume` is to be called in the next turn. */
  readonly again: (carrier: Carrier<S>) => void
  /** A stream that waited for room may continue. */
  readonly unparked: (stream: S) => void
  readonly data: (
    carrier: Carrier<S>,
    stream: number,
    bytes: Uint8Array,
    at: number,
    size: number
  ) => string | undefined
  readonly control: (
    carrier: Carrier<S>,
    type: number,
    stream: number,
    view: DataView,
    at: number,
    size: number
  ) => string | undefined
  /** The connection is lost; another may be attached. */
  readonly lost: (carrier: Carrier<S>, how: Loss) => void
  /** The carrier cannot go on: the other side broke the protocol, or has given it up. `problem` is a sentence for the log. */
  readonly failed: (carrier: Carrier<S>, problem: string) => void
}

/** The most unacknowledged bytes before streams wait. */
export const windowBytes = 1024 * 1024
/** The most bytes that the connection has not taken before bulk waits. */
export const bulkUnsentBytes = 64 * 1024

export class Carrier<S> implements NonBlocking.Owner {
  readonly number: number
  readonly buffer = new SendBuffer()
  /** How many connections were attached so far. */
  attempt = 0
  /** `Greeting`: the other side has not sent yet how much it has received. */
  state: "Detached" | "Greeting" | "Attached" | "Over" = "Detached"
  /** How many streams it has. */
  streams = 0
  /** When a sweep first found it without a connection that the other side has answered on; `undefined` while it has one. */
  awaySince: number | undefined
  private wasAttached = false
  /** `flush`, or `resume`, is to be called. */
  isDirty = false
  private isAgain = false
  private readonly events: Events<S>
  private readonly reader: FrameReader.FrameReader
  private connection: NonBlocking.Connection | undefined
  /** Bytes received, of all connections; and how far that was told to the other side. */
  private received = 0
  private told = 0
  /** Something was received that the other side waits to see acknowledged; and that has waited for a sweep. */
  private owes = false
  private isDue = false
  /** Behind the last frame that the other side has to acknowledge, which is every frame but `ack`. */
  private awaited = 0
  private readonly parked: ParkedStreams<S>
  private readonly attaching = new AttachExchange()
  private readonly watch = new CarrierWatch()

  constructor(number: number, events: Events<S>) {
    this.number = number
    this.events = events
    this.parked = new ParkedStreams<S>({ hasRoom: (isBulk) => this.hasRoom(isBulk), unparked: events.unparked })
    this.reader = new FrameReader.FrameReader({
      data: (stream, bytes, at, size) => {
        if (this.state === "Over") return isOver
        this.owe()
        return events.data(this, stream, bytes, at, size)
      },
      control: (type, stream, view, at, size) =>
        this.state === "Over" ? isOver : this.control(type, stream, view, at, size)
    })
  }

  // Writing frames

  /** A segment with room for a `data` frame of so many bytes, and where its payload begins. */
  roomForData(bytes: number) {
    return this.buffer.room(StreamFrame.headerBytes + bytes)
  }
  /** The payload of a `data` frame is in the segment, behind room for its header. */
  commitData(segment: ReturnType<SendBuffer["room"]>, stream: number, bytes: number) {
    StreamFrame.setHeader(segment.view, segment.used, StreamFrame.types.data, bytes, stream)
    this.commit(segment, StreamFrame.headerBytes + bytes)
  }
  /** A frame whose payload is `payload`. */
  send(type: number, stream: number, payload: Uint8Array = noBytes) {
    if (this.state === "Over") return
    const segment = this.begin(type, payload.length, stream)
    segment.bytes.set(payload, segment.used + StreamFrame.headerBytes)
    this.commit(segment, StreamFrame.headerBytes + payload.length)
  }
  /** A frame whose payload is a number of `size` bytes: 1, 4 or 6. */
  sendNumber(type: number, stream: number, value: number, size: 1 | 4 | 6) {
    if (this.state === "Over") return
    const segment = this.begin(type, size, stream)
    const at = segment.used + StreamFrame.headerBytes
    if (size === 1) segment.view.setUint8(at, value)
    else if (size === 4) segment.view.setUint32(at, value)
    else StreamFrame.setUint48(segment.view, at, value)
    this.commit(segment, StreamFrame.headerBytes + size)
  }
  private begin(type: number, size: number, stream: number) {
    const segment = this.buffer.room(StreamFrame.headerBytes + size)
    StreamFrame.setHeader(segment.view, segment.used, type, size, stream)
    return segment
  }
  private commit(segment: ReturnType<SendBuffer["room"]>, bytes: number) {
    this.buffer.commit(segment, bytes)
    this.awaited = this.buffer.end
    this.touch()
  }
  /** Something has come that is to be acknowledged. The first time it wakes the owner, which sweeps until it is. */
  private owe() {
    if (this.owes) return
    this.owes = true
    this.touch()
  }
  private touch() {
    if (this.isDirty || this.state === "Over") return
    this.isDirty = true
    this.events.dirty(this)
  }

  // Room

  /** Whether a stream may add data now. Bulk leaves the connection free for streams with little traffic. */
  hasRoom(isBulk: boolean) {
    return this.buffer.unacknowledged() < windowBytes && !(isBulk && this.buffer.unsent() >= bulkUnsentBytes)
  }
  /** Whether so much waits for the other side that no stream should be added. */
  isFull() {
    return this.buffer.unacknowledged() >= maxKeptBytes / 2
  }
  /** The stream waits for room. */
  park(stream: S, isBulk: boolean) {
    this.parked.add(stream, isBulk)
  }
  parkedStreams() {
    return this.parked.count()
  }
  /** The stream is over. */
  leave(stream: S) {
    this.streams--
    this.parked.remove(stream)
  }
  /** The lower, the sooner a new stream is served. */
  load() {
    return this.buffer.unsent() + this.streams * loadOfStream + (this.state === "Attached" ? 0 : loadOfDetached)
  }

  // Connections

  /**
   * Continues over this connection, and resets the present one. `attempt` is that of the other side's signal; by default it
   * is the next. Returns `false`, and resets the connection, when a later one was attached before.
   */
  attach(connection: NonBlocking.Connection, attempt = this.attempt + 1): boolean {
    if (attempt <= this.attempt || this.state === "Over") {
      connection.reset()
      return false
    }
    this.connection?.reset()
    this.connection = connection
    this.attempt = attempt
    this.state = "Greeting"
    this.attaching.begin({ carrier: this.number, attempt, received: this.received })
    this.watch.begin()
    connection.setOwner(this)
    // Not at once: this may be called while another carrier is read.
    this.readAgain()
    this.touch()
    return true
  }
  /** A connection that is broken is read too: the other side may have said why. */
  ready(readable: boolean, writable: boolean, isBroken = false) {
    if (readable || isBroken) this.receive()
    if (writable) this.touch()
  }
  private readAgain() {
    if (this.isAgain) return
    this.isAgain = true
    this.events.again(this)
  }
  /** Reads what was left for this turn. */
  resume() {
    this.isAgain = false
    this.receive()
  }
  /** The connection is lost, or is to be replaced. */
  lose(how: Loss = "Broken") {
    const { connection } = this
    if (connection === undefined) return
    this.connection = undefined
    this.state = "Detached"
    connection.reset()
    this.events.lost(this, how)
  }
  /** Asks for an acknowledgement, unless it waits for one: another connection has proved to be dead. */
  probe() {
    if (this.state === "Attached" && this.isSettled()) this.send(StreamFrame.types.ping, 0)
  }
  /** Ends the carrier. Its streams are to be reset before. */
  end() {
    if (this.state === "Over") return
    this.state = "Over"
    this.connection?.reset()
    this.connection = undefined
    this.parked.clear()
    this.buffer.free()
  }
  private fail(problem: string) {
    if (this.state !== "Over") this.events.failed(this, problem)
  }

  // Sending

  /** Writes what the connection takes: all frames of a turn at once. */
  flush() {
    this.isDirty = false
    const { connection } = this
    if (connection === undefined) return
    const left = this.attaching.flush(connection)
    if (left === broken) return this.lose()
    if (left > 0 || this.state !== "Attached") return
    this.acknowledge()
    if (this.buffer.flush(connection) === broken) return this.lose()
    this.parked.release()
  }
  /** Adds an `ack` frame: for much that was received, for less along with other frames, for the rest after a while. */
  private acknowledge() {
    const news = this.received - this.told
    const along = this.buffer.unsent() > 0 && news >= acknowledgeAlongBytes
    if (!along && !this.isDue && news < acknowledgeBytes) return
    this.owes = false
    this.isDue = false
    this.told = this.received
    const { awaited } = this
    this.isDirty = true
    this.sendNumber(StreamFrame.types.ack, 0, this.received, 6)
    this.awaited = awaited
    this.isDirty = false
  }

  // Receiving

  private receive() {
    for (let round = 0; this.connection !== undefined; round++) {
      if (round === roundsPerTurn) {
        this.readAgain()
        break
      }
      const count = this.connection.read(received, 0, received.length)
      if (count === nothing) break
      if (count <= 0) return this.lose()
      let problem = this.readFrames(count)
      if (this.buffer.unacknowledged() > maxKeptBytes) problem ??= "the other side acknowledges nothing"
      if (problem !== undefined) return this.fail(problem)
    }
    if (this.received - this.told >= acknowledgeBytes) this.touch()
  }
  private readFrames(count: number): string | undefined {
    let from = 0
    if (this.state === "Greeting") {
      from = this.attaching.hear(received, count)
      if (!this.attaching.isHeard()) return undefined
      const problem = this.greet()
      if (problem !== undefined) return problem
    }
    if (from === count) return undefined
    this.received += count - from
    if (from > 0) received.copyWithin(0, from, count)
    return this.reader.read(received, receivedView, count - from)
  }
  /** The other side's `attach` frame has come. */
  private greet(): string | undefined {
    const heard = this.attaching.heard()
    if (heard === undefined || heard.carrier !== this.number || heard.attempt !== this.attempt) {
      return "another frame where an attach frame was expected"
    }
    if (heard.received === undefined) return "the other side has given it up"
    const offset = StreamFrame.nextTo(this.buffer.acknowledged, heard.received)
    if (!this.buffer.rewind(offset)) return `an attach frame with the offset ${offset}`
    this.state = "Attached"
    this.wasAttached = true
    this.watch.begin()
    // Our frame has told them.
    this.told = this.received
    this.owes = false
    this.isDue = false
    this.touch()
    return undefined
  }
  private control(type: number, stream: number, view: DataView, at: number, size: number): string | undefined {
    if (type === StreamFrame.types.ack) {
      const offset = StreamFrame.nextTo(this.buffer.acknowledged, StreamFrame.getUint48(view, at))
      if (!this.buffer.acknowledge(offset)) return `an ack frame with the offset ${offset}`
      this.parked.release()
      return undefined
    }
    this.owe()
    if (type === StreamFrame.types.ping) return undefined
    return this.events.control(this, type, stream, view, at, size)
  }

  /** Whether all that it has sent is acknowledged. */
  isSettled() {
    return this.buffer.acknowledged >= this.awaited
  }
  /** Whether it has no need of sweeps until it wakes its owner. */
  isQuiet() {
    return this.state === "Attached" && this.isSettled() && !this.owes && !this.isDue
  }

  // Periodic work

  /**
   * Acknowledges what was received a while ago, and looks whether the connection is alive: what that takes is in `CarrierWatch`.
   * Only carriers with streams are asked.
   */
  sweep(now: number, limitMillis: number) {
    if (this.state === "Attached" || this.wasAttached) this.awaySince = undefined
    else this.awaySince ??= now
    this.wasAttached = false
    if (this.connection === undefined) return
    if (this.owes) {
      this.isDue = true
      this.touch()
    }
    const come = this.received + this.attaching.heardBytes
    if (this.state !== "Attached" || !this.isSettled()) {
      if (this.watch.isLost(now, come, this.buffer.acknowledged, limitMillis)) this.lose("Silent")
    } else if (this.watch.isQuiet(now, come, limitMillis) && this.streams > 0) this.send(StreamFrame.types.ping, 0)
  }
}

// internal

const noBytes = new Uint8Array(0)

/** Returned for frames that come after the carrier has ended, so that reading stops. It is not logged. */
const isOver = "the carrier is over"

/** What was read last, of all carriers of this thread. */
const received = new Uint8Array(256 * 1024)
const receivedView = new DataView(received.buffer)
/** Reads in a row before it is the turn of others. */
const roundsPerTurn = 8

const acknowledgeBytes = 64 * 1024
const acknowledgeAlongBytes = 4 * 1024

/** Beyond this the other side sends frames that need an answer, and acknowledges none. */
const maxKeptBytes = windowBytes + 4 * 1024 * 1024

const loadOfStream = 64
const loadOfDetached = 1e12
