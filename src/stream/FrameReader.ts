/**
 * Reads frames from the bytes of a carrier, as they come: in part, many at a time, cut anywhere.
 */
import { headerBytes, maxDataBytes, maxOpenBytes, payloadBytes, types } from "./StreamFrame.js"

/** Takes what was read. Each returns what is wrong with the frame, or `undefined`. */
export interface Sink {
  /** A part of the payload of a `data` frame, at least one byte. The bytes are the caller's: copy what has to stay. */
  readonly data: (stream: number, bytes: Uint8Array, at: number, size: number) => string | undefined
  /** A whole frame of another type. Its payload is at `at` of the view. */
  readonly control: (type: number, stream: number, view: DataView, at: number, size: number) => string | undefined
}

export class FrameReader {
  readonly sink: Sink
  /** The beginning of a frame whose rest has not come. */
  readonly head = new Uint8Array(headerBytes + maxOpenBytes)
  readonly headView = new DataView(this.head.buffer)
  headSize = 0
  /** Bytes of the present `data` frame that have not come, and its stream. */
  left = 0
  stream = 0

  constructor(sink: Sink) {
    this.sink = sink
  }

  /** Reads `count` bytes of `bytes`, whose view is `view`. Returns what is wrong with them, or `undefined`. */
  read(bytes: Uint8Array, view: DataView, count: number): string | undefined {
    for (let at = 0; at < count;) {
      let problem: string | undefined
      if (this.left > 0) {
        const size = Math.min(this.left, count - at)
        problem = this.sink.data(this.stream, bytes, at, size)
        this.left -= size
        at += size
      } else if (this.headSize > 0) {
        const needed = this.headSize < headerBytes ? headerBytes : headerBytes + this.headView.getUint16(2)
        const size = Math.min(needed - this.headSize, count - at)
        this.head.set(bytes.subarray(at, at + size), this.headSize)
        this.headSize += size
        at += size
        if (this.headSize === needed) problem = this.readHead()
      } else if (count - at < headerBytes) {
        this.keep(bytes, at, count)
        return undefined
      } else {
        const type = view.getUint8(at)
        const size = view.getUint16(at + 2)
        const stream = view.getUint32(at + 4)
        problem = problemOf(type, size)
        if (problem !== undefined) return problem
        if (type === types.data) {
          this.left = size
          this.stream = stream
          at += headerBytes
        } else if (count - at < headerBytes + size) {
          this.keep(bytes, at, count)
          return undefined
        } else {
          problem = this.sink.control(type, stream, view, at + headerBytes, size)
          at += headerBytes + size
        }
      }
      if (problem !== undefined) return problem
    }
    return undefined
  }

  /** Keeps the beginning of a frame, up to the end of the bytes. */
  private keep(bytes: Uint8Array, at: number, end: number) {
    this.head.set(bytes.subarray(at, end))
    this.headSize = end - at
  }

  /** A header is whole, or a frame is. */
  private readHead(): string | undefined {
    const { headView } = this
    const type = headView.getUint8(0)
    const size = headView.getUint16(2)
    const stream = headView.getUint32(4)
    if (this.headSize === headerBytes) {
      const problem = problemOf(type, size)
      if (problem !== undefined) return problem
      if (type === types.data) {
        this.left = size
        this.stream = stream
        this.headSize = 0
        return undefined
      }
      if (size > 0) return undefined
    }
    this.headSize = 0
    return this.sink.control(type, stream, headView, headerBytes, size)
  }
}

// internal

const problemOf = (type: number, size: number): string | undefined => {
  if (type === types.data) {
    return size >= 1 && size <= maxDataBytes ? undefined : `a data frame of ${size} bytes`
  }
  if (type === types.open) return size <= maxOpenBytes ? undefined : `an open frame of ${size} bytes`
  const expected = payloadBytes[type]
  if (expected === undefined) return `a frame of type ${type}`
  return size === expected ? undefined : `a frame of type ${type} of ${size} bytes`
}
