/**
 * The open streams of a session on one side, and what they hold together.
 */
import type * as Carrier from "./Carrier.js"
import * as StreamFrame from "./StreamFrame.js"
import { firstWindow, type Pumps, type Result, VisitorStream } from "./VisitorStream.js"

export interface Counts {
  readonly streams: number
  readonly opened: number
  readonly moved: number
  /** Bytes that connections have not taken. */
  readonly pendingBytes: number
  /** Bytes by which windows have grown, and which may come at any time. */
  readonly grownBytes: number
}

export class StreamTable {
  readonly byId = new Map<number, VisitorStream>()
  opened = 0
  moved = 0
  pendingBytes = 0
  grownBytes = 0
  private lastId = 0

  /** A number that no open stream has. */
  nextId(): number {
    do this.lastId = this.lastId === StreamFrame.maxStream ? 1 : this.lastId + 1
    while (this.byId.has(this.lastId))
    return this.lastId
  }
  add(id: number, carrier: Carrier.Carrier<VisitorStream>, pumps: Pumps): VisitorStream {
    const stream = new VisitorStream(id, carrier, pumps)
    this.byId.set(id, stream)
    carrier.streams++
    this.opened++
    return stream
  }
  /** Resets a stream, and the connection on the other side. */
  reset(stream: VisitorStream, code: number) {
    if (stream.isOver) return
    stream.carrier.sendNumber(StreamFrame.types.reset, stream.id, code, 1)
    this.close(stream, { _tag: "Reset", by: "us", code })
  }
  close(stream: VisitorStream, result: Result) {
    const { connection } = stream
    this.leave(stream)
    if (result._tag === "Done") connection?.close()
    else connection?.reset()
    stream.listener?.ended(result)
  }
  /** Resets all streams of a carrier that has ended. Listeners find none of them open. */
  closeAll(carrier: Carrier.Carrier<VisitorStream>, code: number) {
    const closed: Array<VisitorStream> = []
    for (const stream of this.byId.values()) if (stream.carrier === carrier) closed.push(stream)
    for (const stream of closed) {
      const { connection } = stream
      this.leave(stream)
      connection?.reset()
    }
    for (const { listener } of closed) listener?.ended({ _tag: "Reset", by: "them", code })
  }
  /** The stream is over here: its connection, if any, is the caller's. */
  leave(stream: VisitorStream) {
    stream.isOver = true
    this.byId.delete(stream.id)
    stream.carrier.leave(stream)
    this.pendingBytes -= stream.pending.size
    this.grownBytes -= stream.window - firstWindow
    stream.pending.clear()
    stream.connection = undefined
    stream.pooled?.reset()
    stream.pooled = undefined
  }
  counts(): Counts {
    return {
      streams: this.byId.size,
      opened: this.opened,
      moved: this.moved,
      pendingBytes: this.pendingBytes,
      grownBytes: this.grownBytes
    }
  }
}
