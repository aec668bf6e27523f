/**
 * A peer that sends whatever frames a test makes, over connections that it holds itself, and a multiplexer that has to stand
 * them: with streams whose connections echo, or take nothing.
 */
import { Multiplexer, type Options } from "../../../src/stream/Multiplexer.js"
import * as StreamFrame from "../../../src/stream/StreamFrame.js"
import type { Listener, Result, VisitorStream } from "../../../src/stream/VisitorStream.js"
import { broken, type Connection, nothing, type Owner } from "../../../src/transport/NonBlocking.js"

export interface Frame {
  readonly type: number
  readonly stream: number
  readonly payload: Uint8Array
}

export const encode = (...frames: ReadonlyArray<Frame>): Uint8Array => {
  const size = frames.reduce((sum, { payload }) => sum + StreamFrame.headerBytes + payload.length, 0)
  const bytes = new Uint8Array(size)
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const { payload, stream, type } of frames) {
    StreamFrame.setHeader(view, at, type, payload.length, stream)
    bytes.set(payload, at + StreamFrame.headerBytes)
    at += StreamFrame.headerBytes + payload.length
  }
  return bytes
}

/** The bytes of a number, as payloads have them. */
export const number = (value: number, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, at) => Math.floor(value / 256 ** (bytes - 1 - at)) % 256)

/** A connection whose other end is the test. */
export class Wire implements Connection {
  private readonly arrived: Array<Uint8Array> = []
  private owner: Owner | undefined
  /** Bytes that it still takes. */
  room = Infinity
  writtenBytes = 0
  isOver = false
  isEcho = false
  private isBroken = false

  /** The test has sent these bytes. */
  send(bytes: Uint8Array) {
    if (bytes.length > 0) this.arrived.push(bytes)
    this.owner?.ready(true, false)
  }
  read(bytes: Uint8Array, at: number, size: number): number {
    this.use()
    const first = this.arrived[0]
    if (first === undefined) return this.isBroken ? broken : nothing
    const count = Math.min(size, first.length)
    bytes.set(first.subarray(0, count), at)
    if (count === first.length) this.arrived.shift()
    else this.arrived[0] = first.subarray(count)
    return count
  }
  write(bytes: Uint8Array, at: number, size: number): number {
    this.use()
    const count = Math.min(this.room, size)
    this.room -= count
    this.writtenBytes += count
    if (this.isEcho) this.arrived.push(bytes.slice(at, at + count))
    return count
  }
  /** The test resets it. */
  break() {
    this.isBroken = true
    if (!this.isOver) this.owner?.ready(true, true, true)
  }
  /** Lets the owner read what was echoed. */
  tell() {
    if (!this.isOver) this.owner?.ready(true, true)
  }
  shutdown() {
    this.use()
  }
  close() {
    this.use()
    this.isOver = true
  }
  reset() {
    this.use()
    this.isOver = true
  }
  setOwner(owner: Owner) {
    this.use()
    this.owner = owner
  }
  private use() {
    if (this.isOver) throw new Error("a connection is used that is closed")
  }
}

export class Forger {
  readonly multiplexer: Multiplexer
  readonly failures: Array<string> = []
  readonly lost: Array<number> = []
  /** Moves that were given up. */
  unanswered = 0
  readonly results: Array<Result> = []
  readonly connections: Array<Wire> = []
  /** Connections of streams that the peer opens. */
  takes: "All" | "Echo" | "Nothing" = "Echo"
  now = 0
  private isAwake = false
  private poolId = 0

  constructor(options: Pick<Options, "visitors"> & Partial<Options>) {
    this.multiplexer = new Multiplexer({
      maxStreams: 100,
      idleMillis: Infinity,
      wake: () => {
        this.isAwake = true
      },
      opened: (stream) => {
        stream.listener = this.listener
        this.multiplexer.connect(stream, this.connection())
      },
      lost: (carrier) => this.lost.push(carrier.number),
      failed: (_, problem) => this.failures.push(problem),
      takePooled: () => ({ id: ++this.poolId, pooled: { reset: () => {} } }),
      findPooled: (id) => (id % 2 === 0 ? { reset: () => {} } : undefined),
      unanswered: () => void this.unanswered++,
      moveAfterBytes: 5000,
      ...options
    })
  }
  readonly listener: Listener = {
    ended: (result: Result) => void this.results.push(result),
    moved: () => {}
  }
  connection(): Wire {
    const connection = new Wire()
    connection.isEcho = this.takes === "Echo"
    if (this.takes === "Nothing") connection.room = 0
    this.connections.push(connection)
    return connection
  }
  /** A visitor comes, and sends so many bytes. */
  visit(bytes: number): VisitorStream | undefined {
    const connection = this.connection()
    connection.send(new Uint8Array(bytes))
    return this.multiplexer.open(connection, new Uint8Array(4), this.listener)
  }
  /** Attaches a carrier, with the peer's first frame unless it is another. */
  attach(number: number, attempt = 1, first?: Uint8Array): Wire {
    const wire = new Wire()
    wire.send(first ?? StreamFrame.encodeAttach({ carrier: number, attempt, received: 0 }))
    this.multiplexer.attach(number, attempt, wire)
    this.turn()
    return wire
  }
  /** The state and the streams of a carrier. */
  carrier(number: number) {
    const carrier = this.multiplexer.carriers.get(number)
    return { state: carrier?.state ?? "Over", streams: carrier?.streams ?? 0 }
  }
  /** Lets the multiplexer go on until it has nothing to do. */
  turn(most = 100) {
    for (let turns = 0; turns < most; turns++) {
      for (const connection of this.connections) connection.tell()
      if (!this.isAwake) return
      this.isAwake = false
      this.multiplexer.turn()
    }
  }
  sweep(millis = 250) {
    this.now += millis
    this.multiplexer.sweep(this.now, 1000)
    this.turn()
  }
  /** What it keeps for its peer. */
  keptBytes() {
    let bytes = this.multiplexer.counts().pendingBytes
    for (const { buffer } of this.multiplexer.carriers.values()) bytes += buffer.unacknowledged()
    return bytes
  }
}
