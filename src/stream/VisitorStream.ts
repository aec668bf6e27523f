/**
 * One visitor on a carrier: what was said about it in each direction, and its connection on this side.
 */
import type * as Carrier from "./Carrier.js"
import type * as NonBlocking from "../transport/NonBlocking.js"
import { PendingBytes } from "./PendingBytes.js"

/** How a stream ended. `code`: see `StreamFrame.resets`. */
export type Result =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Reset"; readonly by: "us" | "them"; readonly code: number }

/** A pool connection that a stream may be moved to. */
export interface Pooled {
  reset(): void
}

/** Who opened the stream on this side, or serves it: an object, whose methods need it. */
export interface Listener {
  /** The stream has ended, and its connection is closed or reset. Called once, unless the stream was moved. */
  ended(result: Result): void
  /**
   * The stream goes on over this pool connection. `unwritten` came before, and its connection has not taken it yet. Without it
   * the stream is never moved.
   */
  moved?(connection: NonBlocking.Connection, pooled: Pooled, unwritten: Uint8Array): void
  /** Whether the stream can go on over this pool connection. Defaults to any. */
  accepts?(pooled: Pooled): boolean
}

/** Bytes that a side may send before the other side has granted more, at first and at most. */
export const firstWindow = 64 * 1024
export const maxWindow = 1024 * 1024

/** A class, since there are many streams, and closures for each method would take most of the memory. */
export class VisitorStream implements NonBlocking.Owner {
  readonly id: number
  readonly carrier: Carrier.Carrier<VisitorStream>
  private readonly pumps: Pumps
  listener: Listener | undefined
  /** `undefined` while the target is being dialled, and from the end on. */
  connection: NonBlocking.Connection | undefined

  /** From our connection to the carrier. `Moving`: we asked to be moved, and send nothing more here. */
  out: "Open" | "Moving" | "Ended" = "Open"
  /** Bytes that we may send. */
  credit = firstWindow
  readable = true
  isParked = false
  /** Its connection was reset or failed, which a read will say. */
  isBroken = false
  /** It is in the list of streams that go on in the next turn. */
  isAgain = false
  sentBytes = 0

  /** From the carrier to our connection. `Ended`: their end has come. `Done`: our connection has it. */
  into: "Open" | "Ended" | "Done" = "Open"
  /** Bytes that they may still send, bytes that our connection took and that were not granted anew, and the window. */
  granted = firstWindow
  owed = 0
  window = firstWindow
  /** What our connection has not taken. */
  readonly pending = new PendingBytes()
  receivedBytes = 0

  isOver = false
  /** Bytes of both directions, halved every second: whether it is bulk. */
  recentBytes = 0
  /** Whether it may be moved: not before the next second where no pool connection was idle, and asked for once. */
  move: "May" | "Later" | "Never" = "May"
  pooled: Pooled | undefined
  /** Something passed since the last sweep; and for how long nothing has. */
  isActive = true
  idleMillis = 0

  constructor(id: number, carrier: Carrier.Carrier<VisitorStream>, pumps: Pumps) {
    this.id = id
    this.carrier = carrier
    this.pumps = pumps
  }

  ready(readable: boolean, writable: boolean, isBroken = false) {
    if (this.isOver) return
    if (isBroken) return this.pumps.failed(this)
    if (readable) {
      this.readable = true
      if (this.out === "Ended") this.pumps.look(this)
      else this.pumps.pump(this)
    }
    if (writable && this.pending.size > 0) this.pumps.drain(this)
  }
}

/** Moves the bytes of streams. */
export interface Pumps {
  /** From the stream's connection to its carrier. */
  readonly pump: (stream: VisitorStream) => void
  /** The stream's connection has ended in our direction: it may have been reset since. */
  readonly look: (stream: VisitorStream) => void
  /** The stream's connection was reset, or failed: what came before is still passed on, unless that has to wait. */
  readonly failed: (stream: VisitorStream) => void
  /** From what the stream's connection has not taken, to that connection. */
  readonly drain: (stream: VisitorStream) => void
}
