/**
 * A visitor's stream without fibers: it is joined with a connection that does not block, at once, or reset.
 */
import type { Address } from "../core/Address.js"
import type * as NonBlocking from "../transport/NonBlocking.js"
import type { Multiplexer } from "./Multiplexer.js"
import type { Listener, VisitorStream } from "./VisitorStream.js"

/** What a stream is joined with a connection by. */
export interface Joinable {
  /**
   * Puts the connection at this end of the stream, once and for all: what comes from it goes to the stream, and the other way
   * round. Returns the stream; `undefined` when that is not possible.
   */
  join(connection: NonBlocking.Connection, listener: Listener): VisitorStream | undefined
  /** Resets the stream unless it is over. `code`: see `StreamFrame.resets`. */
  resetNow(code?: number): void
}

/** A stream to be opened: the payload of its `open` frame, and what is called once it is. */
export interface Unopened {
  readonly payload: Uint8Array
  readonly opened: (stream: VisitorStream) => void
}

/** A class, since there are many visitors, and closures for each method would take most of the memory. */
export class StreamHandle implements Joinable {
  /** The other end of the tunnel. */
  readonly remote: Address
  private readonly multiplexer: Multiplexer
  private stream: VisitorStream | undefined
  private unopened: Unopened | undefined

  /** Of a stream that the other side has opened, or of one that `join` opens. */
  constructor(multiplexer: Multiplexer, remote: Address, stream: VisitorStream | Unopened) {
    this.multiplexer = multiplexer
    this.remote = remote
    if ("payload" in stream) this.unopened = stream
    else this.stream = stream
  }
  join(connection: NonBlocking.Connection, listener: Listener): VisitorStream | undefined {
    const { multiplexer, unopened } = this
    if (unopened !== undefined) {
      this.unopened = undefined
      this.stream = multiplexer.open(connection, unopened.payload, listener)
      if (this.stream !== undefined) unopened.opened(this.stream)
      return this.stream
    }
    const { stream } = this
    if (stream === undefined || stream.isOver) return undefined
    stream.listener = listener
    multiplexer.connect(stream, connection)
    return stream
  }
  resetNow(code?: number) {
    if (this.stream !== undefined) this.multiplexer.reset(this.stream, code)
  }
}
