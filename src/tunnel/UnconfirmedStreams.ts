/**
 * Streams of which the other side has not confirmed that it knows them. They are given up when that takes too long, as
 * launches are.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import type { VisitorStream } from "../stream/VisitorStream.js"

export interface UnconfirmedStreams {
  /** The stream was opened just now. */
  readonly add: (stream: VisitorStream) => void
  /** Removes and returns the streams that were not confirmed in time; removes those that were confirmed. */
  readonly expire: (now: number) => ReadonlyArray<VisitorStream>
  readonly isEmpty: () => boolean
}

/** `timeout`: how long the other side may take without confirming anything of the carrier. A slow network is no reason. */
export const make = (clock: Clock.Clock, timeout: Duration.Duration): UnconfirmedStreams => {
  const entries = new Set<Unconfirmed>()
  const timeoutMillis = Duration.toMillis(timeout)
  return {
    add: (stream) => {
      // Its `open` frame is the last one of its carrier, and so confirmed once all of them are acknowledged.
      const { acknowledged, end } = stream.carrier.buffer
      entries.add({ stream, offset: end, acknowledged, at: clock.unsafeCurrentTimeMillis() })
    },
    expire: (now) => {
      const expired: Array<VisitorStream> = []
      for (const entry of entries) {
        const { offset, stream } = entry
        const { acknowledged } = stream.carrier.buffer
        if (acknowledged > entry.acknowledged) {
          entry.acknowledged = acknowledged
          entry.at = now
        }
        const isConfirmed = stream.isOver || acknowledged >= offset
        const isLate = now - entry.at >= timeoutMillis
        if (isConfirmed || isLate) entries.delete(entry)
        if (!isConfirmed && isLate) expired.push(stream)
      }
      return expired
    },
    isEmpty: () => entries.size === 0
  }
}

// internal

interface Unconfirmed {
  readonly stream: VisitorStream
  /** Behind its `open` frame. */
  readonly offset: number
  /** What was acknowledged when it was looked at last, and since when. */
  acknowledged: number
  at: number
}
