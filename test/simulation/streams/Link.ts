/**
 * A simulated connection that does not block: two ends with a path between them that delays, takes and gives bytes in
 * pieces, says `nothing` at any moment, freezes, and is cut at any byte. It checks that its user keeps the contract of
 * `NonBlocking.Connection`.
 */
import * as NonBlocking from "../../../src/transport/NonBlocking.js"
import type { Clock } from "./Clock.js"

export interface Path {
  readonly latencyMillis: number
  /** Bytes that are on their way or unread, in each direction, at most. */
  readonly bufferBytes: number
  /** How likely a read or a write passes fewer bytes than it could. */
  readonly shortness: number
  /** How likely a read or a write passes nothing although it could. */
  readonly refusals: number
  /** Whether an end tells its owner of a reset without being asked. */
  readonly tells: boolean
  /** How likely a packet is lost on the way: it and all after it arrive a round trip and `lossMillis` later. */
  readonly loss?: number | undefined
  readonly lossMillis?: number | undefined
}

export class Link {
  readonly clock: Clock
  readonly path: Path
  readonly near: End
  readonly far: End
  isFrozen = false
  /** Nothing passes any more. */
  isCut = false
  private readonly held: Array<() => void> = []

  constructor(clock: Clock, path: Path) {
    this.clock = clock
    this.path = path
    this.near = new End(this)
    this.far = new End(this)
    this.near.peer = this.far
    this.far.peer = this.near
  }

  /** Loses what is on the way. Each end notices after its own delay. */
  cut(nearMillis: number, farMillis: number) {
    if (this.isCut) return
    this.isCut = true
    this.clock.after(nearMillis, () => this.near.breakOff())
    this.clock.after(farMillis, () => this.far.breakOff())
  }
  /** Nothing passes, and no end notices. */
  freeze() {
    this.isFrozen = true
  }
  thaw() {
    this.isFrozen = false
    for (const event of this.held.splice(0)) this.pass(event)
  }
  /** The event happens at the other end of the path. */
  pass(event: () => void) {
    if (this.isCut) return
    if (this.isFrozen) this.held.push(event)
    else event()
  }
}

export class End implements NonBlocking.Connection {
  readonly link: Link
  peer!: End
  private owner: NonBlocking.Owner | undefined
  /** What has arrived and was not read. */
  private arrived: Array<Uint8Array> = []
  /** How many of these were read: to shift an array of thousands takes long. */
  private at = 0
  private arrivedBytes = 0
  /** Bytes that this end may write now. */
  private room: number
  /** Bytes that were read, and that the other end does not know of. */
  private freed = 0
  private lastArrival = 0
  private hasEnded = false
  private isBroken = false
  private isShut = false
  /** `close` or `reset` was called. */
  isOver = false
  private waitsReadable = false
  private waitsWritable = false
  /** Bytes written so far, for worlds that look whether a connection is silent. */
  writtenBytes = 0

  constructor(link: Link) {
    this.link = link
    this.room = link.path.bufferBytes
  }

  setOwner(owner: NonBlocking.Owner) {
    this.use("setOwner")
    this.owner = owner
  }

  read(bytes: Uint8Array, at: number, size: number): number {
    this.use("read")
    const { clock, path } = this.link
    if (size <= 0 || at + size > bytes.length) throw new Error(`a read of ${size} bytes at ${at} of ${bytes.length}`)
    if (clock.chance(path.refusals)) {
      this.waitsReadable = true
      clock.after(clock.below(3), () => this.tell(true, false))
      return NonBlocking.nothing
    }
    if (this.arrivedBytes > 0) {
      let count = Math.min(size, this.arrivedBytes)
      if (count > 1 && clock.chance(path.shortness)) count = 1 + clock.below(count - 1)
      this.take(bytes, at, count)
      this.giveRoom(count)
      return count
    }
    if (this.isBroken) return NonBlocking.broken
    if (this.hasEnded) return 0
    this.waitsReadable = true
    return NonBlocking.nothing
  }
  private take(bytes: Uint8Array, at: number, count: number) {
    this.arrivedBytes -= count
    for (let left = count; left > 0;) {
      const first = this.arrived[this.at]
      if (first === undefined) throw new Error("bytes were miscounted")
      const part = Math.min(left, first.length)
      bytes.set(first.subarray(0, part), at + count - left)
      left -= part
      if (part === first.length) this.at++
      else this.arrived[this.at] = first.subarray(part)
    }
    if (this.arrivedBytes === 0 || this.at >= 1000) {
      this.arrived = this.arrived.slice(this.at)
      this.at = 0
    }
  }
  /** Tells the other end that there is room, as the kernel does: once a quarter of the buffer is free. */
  private giveRoom(bytes: number) {
    const { clock, path } = this.link
    const isOnItsWay = this.freed > 0
    this.freed += bytes
    if (isOnItsWay) return
    clock.after(path.latencyMillis, () => {
      const { freed, peer } = this
      this.freed = 0
      this.link.pass(() => {
        peer.room += freed
        if (peer.room >= path.bufferBytes / 4) peer.tell(false, true)
      })
    })
  }

  write(bytes: Uint8Array, at: number, size: number): number {
    this.use("write")
    if (this.isShut) throw new Error("a write after shutdown")
    if (size <= 0 || at + size > bytes.length) throw new Error(`a write of ${size} bytes at ${at} of ${bytes.length}`)
    const { clock, path } = this.link
    if (this.isBroken) return NonBlocking.broken
    if (clock.chance(path.refusals)) {
      this.waitsWritable = true
      clock.after(clock.below(3), () => this.tell(false, true))
      return 0
    }
    let count = Math.min(size, this.room)
    if (count > 1 && clock.chance(path.shortness)) {
      count = 1 + clock.below(count - 1)
      clock.after(clock.below(3), () => this.tell(false, true))
    }
    if (count < size) this.waitsWritable = true
    if (count === 0) return 0
    this.room -= count
    this.writtenBytes += count
    const chunk = bytes.slice(at, at + count)
    this.arrive(() => this.peer.receive(chunk), Math.ceil(count / packetBytes))
    return count
  }
  private arrive(event: () => void, packets = 1) {
    const { clock, path } = this.link
    const isLost = clock.chance(1 - (1 - (path.loss ?? 0)) ** packets)
    const lost = isLost ? 2 * path.latencyMillis + (path.lossMillis ?? 0) : 0
    this.lastArrival = Math.max(this.lastArrival, clock.now + path.latencyMillis + lost)
    clock.at(this.lastArrival, () => this.link.pass(event))
  }

  shutdown() {
    this.use("shutdown")
    if (this.isShut) throw new Error("a second shutdown")
    this.isShut = true
    if (!this.isBroken) this.arrive(() => this.peer.receiveEnd())
  }
  close() {
    this.use("close")
    this.isOver = true
    if (this.isBroken) return
    // As the kernel does: what was not read is a reset for the other side.
    if (this.arrivedBytes > 0) this.arrive(() => this.peer.breakOff())
    else if (!this.isShut) this.arrive(() => this.peer.receiveEnd())
  }
  reset() {
    this.use("reset")
    this.isOver = true
    if (!this.isBroken) this.arrive(() => this.peer.breakOff())
  }

  private receive(chunk: Uint8Array) {
    if (this.isOver || this.isBroken) {
      if (!this.isBroken) this.arrive(() => this.peer.breakOff())
      return
    }
    this.arrived.push(chunk)
    this.arrivedBytes += chunk.length
    this.tell(true, false)
  }
  private receiveEnd() {
    this.hasEnded = true
    this.tell(true, false)
  }
  /** The connection is reset. What was not read may be lost. */
  breakOff() {
    if (this.isBroken) return
    this.isBroken = true
    if (this.link.clock.chance(0.5)) {
      this.arrived = []
      this.at = 0
      this.arrivedBytes = 0
    }
    if (this.isOver) return
    if (this.link.path.tells) this.owner?.ready(true, true, true)
    else this.tell(true, true)
  }

  /** Tells the owner, if it waits for that. */
  private tell(readable: boolean, writable: boolean) {
    if (this.isOver) return
    const isReadable = readable && this.waitsReadable
    const isWritable = writable && this.waitsWritable
    if (!isReadable && !isWritable) return
    if (isReadable) this.waitsReadable = false
    if (isWritable) this.waitsWritable = false
    this.owner?.ready(isReadable, isWritable)
  }
  private use(call: string) {
    if (this.isOver) throw new Error(`${call} of a connection that is closed`)
  }
}

// internal

const packetBytes = 1400
