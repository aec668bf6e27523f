/**
 * Bytes that a connection has not taken yet, in order. They take little more memory than there are bytes, also when they
 * come one by one.
 */
import { type Connection, broken } from "../transport/NonBlocking.js"

export class PendingBytes {
  size = 0
  private readonly chunks: Array<Chunk> = []

  /** Copies the bytes. */
  add(bytes: Uint8Array, from: number, to: number) {
    this.size += to - from
    const last = this.chunks.at(-1)
    const room = last === undefined ? 0 : Math.min(last.bytes.length - last.to, to - from)
    if (last !== undefined && room > 0) {
      last.bytes.set(bytes.subarray(from, from + room), last.to)
      last.to += room
    }
    const left = to - from - room
    if (left === 0) return
    const chunk = { bytes: new Uint8Array(Math.max(left, leastChunkBytes)), from: 0, to: left }
    chunk.bytes.set(bytes.subarray(from + room, to))
    this.chunks.push(chunk)
  }
  /** Writes what the connection takes. Returns how much that was, or `broken`. */
  flush(connection: Connection): number {
    let flushed = 0
    for (let first = this.chunks[0]; first !== undefined; first = this.chunks[0]) {
      const size = first.to - first.from
      const taken = connection.write(first.bytes, first.from, size)
      if (taken < 0) return broken
      flushed += taken
      this.size -= taken
      first.from += taken
      if (taken < size) break
      this.chunks.shift()
    }
    return flushed
  }
  /** Removes all bytes, and returns them. */
  takeAll(): Uint8Array {
    const bytes = new Uint8Array(this.size)
    let at = 0
    for (const chunk of this.chunks) {
      bytes.set(chunk.bytes.subarray(chunk.from, chunk.to), at)
      at += chunk.to - chunk.from
    }
    this.clear()
    return bytes
  }
  clear() {
    this.chunks.length = 0
    this.size = 0
  }
}

// internal

interface Chunk {
  readonly bytes: Uint8Array
  from: number
  to: number
}

const leastChunkBytes = 2048
