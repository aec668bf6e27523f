/**
 * The first frames of a connection of a carrier, one in each direction: what was not written of ours, and what has come of
 * theirs.
 */
import type { Connection } from "../transport/NonBlocking.js"
import * as StreamFrame from "./StreamFrame.js"

export class AttachExchange {
  private unwritten: Uint8Array = new Uint8Array(0)
  private readonly frame = new Uint8Array(StreamFrame.attachBytes)
  heardBytes = 0

  /** Begins anew, for another connection. */
  begin(attach: StreamFrame.Attach) {
    this.unwritten = StreamFrame.encodeAttach(attach)
    this.heardBytes = 0
  }
  /** Writes the rest of ours. Returns how much is left, or `broken`. */
  flush(connection: Connection): number {
    if (this.unwritten.length === 0) return 0
    const taken = connection.write(this.unwritten, 0, this.unwritten.length)
    if (taken < 0) return taken
    this.unwritten = this.unwritten.subarray(taken)
    return this.unwritten.length
  }
  /** Takes the rest of theirs from the beginning of what has come. Returns how many bytes that were. */
  hear(bytes: Uint8Array, count: number): number {
    const size = Math.min(count, this.frame.length - this.heardBytes)
    this.frame.set(bytes.subarray(0, size), this.heardBytes)
    this.heardBytes += size
    return size
  }
  isHeard() {
    return this.heardBytes === this.frame.length
  }
  /** `undefined` when it is another frame. */
  heard(): StreamFrame.Attach | undefined {
    return StreamFrame.decodeAttach(this.frame)
  }
}
