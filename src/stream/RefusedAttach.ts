/**
 * A connection for a carrier that is over: the other side learns that, and closes it.
 */
import { type Connection, nothing, type Owner } from "../transport/NonBlocking.js"
import * as StreamFrame from "./StreamFrame.js"

export class RefusedAttach implements Owner {
  isOver = false
  private readonly connection: Connection
  private unwritten: Uint8Array
  private isShut = false
  private readBytes = 0
  private since: number | undefined

  constructor(connection: Connection, carrier: number, attempt: number) {
    this.connection = connection
    this.unwritten = StreamFrame.encodeAttach({ carrier, attempt, received: undefined })
    connection.setOwner(this)
    this.ready()
  }

  ready() {
    if (this.isOver) return
    if (this.unwritten.length > 0) {
      const taken = this.connection.write(this.unwritten, 0, this.unwritten.length)
      if (taken < 0) return this.end()
      this.unwritten = this.unwritten.subarray(taken)
    }
    if (this.unwritten.length === 0 && !this.isShut) {
      this.isShut = true
      this.connection.shutdown()
    }
    // What has come and is not read would make a close a reset, and the refusal would be lost.
    for (;;) {
      const count = this.connection.read(ignored, 0, ignored.length)
      if (count === nothing) return
      this.readBytes += count
      if (count <= 0 || this.readBytes > ignored.length) return this.end()
    }
  }
  private end() {
    this.isOver = true
    this.connection.reset()
  }
  /** Gives the other side so long to close it. */
  sweep(now: number, limitMillis: number) {
    this.since ??= now
    if (!this.isOver && now - this.since >= limitMillis) this.end()
  }
}

// internal

const ignored = new Uint8Array(1024)
