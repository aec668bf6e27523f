/**
 * The frames that one side of a carrier has written, until the other side has acknowledged them. So they can be sent again
 * over another connection, from any offset that is not acknowledged.
 */
import { type Connection, broken } from "../transport/NonBlocking.js"

/** A piece of the flow. Bytes are read from a socket straight into it. */
export interface Segment {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** The offset of its first byte in the flow. */
  start: number
  used: number
}

export const segmentBytes = 64 * 1024

/** How many segments the buffers of this thread hold. */
export const heldSegments = () => held

export class SendBuffer {
  /** The offset behind the last byte. */
  end = 0
  /** The offset behind the last byte that the connection took. */
  sent = 0
  /** The offset behind the last byte that the other side has received. */
  acknowledged = 0
  private readonly segments: Array<Segment> = [acquire(0)]
  /** The index of the segment that `sent` is in. */
  private at = 0

  /** A segment with room for so many bytes behind `used`. */
  room(bytes: number): Segment {
    const last = this.segments.at(-1)
    if (last !== undefined && segmentBytes - last.used >= bytes) return last
    const segment = acquire(this.end)
    this.segments.push(segment)
    return segment
  }
  /** The next bytes of the segment that `room` has returned are part of the flow. */
  commit(segment: Segment, bytes: number) {
    segment.used += bytes
    this.end += bytes
  }
  unsent() {
    return this.end - this.sent
  }
  unacknowledged() {
    return this.end - this.acknowledged
  }

  /** Writes what the connection takes. Returns `broken`, or how many bytes it did not take. */
  flush(connection: Connection): number {
    while (this.sent < this.end) {
      let segment = this.segments[this.at]
      if (segment !== undefined && this.sent === segment.start + segment.used) segment = this.segments[++this.at]
      if (segment === undefined) break
      const from = this.sent - segment.start
      const size = segment.used - from
      const taken = connection.write(segment.bytes, from, size)
      if (taken < 0) return broken
      this.sent += taken
      if (taken < size) break
    }
    return this.unsent()
  }

  /** The other side has received all before this offset. Returns `false` when that cannot be. */
  acknowledge(offset: number): boolean {
    if (offset > this.sent) return false
    if (offset <= this.acknowledged) return true
    this.acknowledged = offset
    let first = this.segments[0]
    while (first !== undefined && this.segments.length > 1 && first.start + first.used <= offset) {
      this.segments.shift()
      this.at = Math.max(0, this.at - 1)
      release(first)
      first = this.segments[0]
    }
    // The same memory again, which is in the cache of the processor.
    if (first !== undefined && offset === this.end) {
      first.start = offset
      first.used = 0
      this.at = 0
    }
    return true
  }

  /** Sends again from this offset on. Returns `false` when that cannot be. */
  rewind(offset: number): boolean {
    if (offset < this.acknowledged || !this.acknowledge(offset)) return false
    this.sent = offset
    // Segments before it were given back.
    this.at = 0
    return true
  }

  /** Gives its memory back. Nothing may be called afterwards. */
  free() {
    for (const segment of this.segments.splice(0)) release(segment)
  }
}

// internal

/** Segments that can be used again, of all carriers of this thread. */
const unused: Array<Segment> = []
const maxUnused = 64
let held = 0

const acquire = (start: number): Segment => {
  held++
  const segment = unused.pop()
  if (segment === undefined) {
    const bytes = new Uint8Array(segmentBytes)
    return { bytes, view: new DataView(bytes.buffer), start, used: 0 }
  }
  segment.start = start
  segment.used = 0
  return segment
}

const release = (segment: Segment) => {
  held--
  if (unused.length < maxUnused) unused.push(segment)
}
