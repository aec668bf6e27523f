/**
 * The bytes of a tunnel, summed over all its runs.
 */
import * as Option from "effect/Option"
import type { Checkpoint } from "../tunnel/Checkpoint.js"
import { noTraffic, type Traffic } from "./Instance.js"

/** Each operation takes the last checkpoint of the current run; `None` while the tunnel does not run. */
export interface TrafficTotal {
  readonly read: (checkpoint: Option.Option<Checkpoint>) => Traffic
  /** A new run starts to count at zero. */
  readonly startRun: () => void
  /** Adds the run to the sum. */
  readonly endRun: (last: Option.Option<Checkpoint>) => void
  /** Sets the sum to zero. */
  readonly reset: (checkpoint: Option.Option<Checkpoint>) => void
}

export const make = (saved: Traffic): TrafficTotal => {
  let earlierRuns = saved
  /** What the current run had counted when the sum was last set to zero. */
  let offset = noTraffic
  const read: TrafficTotal["read"] = Option.match({
    onNone: () => earlierRuns,
    onSome: (run) => sum(earlierRuns, run, offset)
  })
  return {
    read,
    startRun: () => {
      offset = noTraffic
    },
    endRun: (last) => {
      earlierRuns = read(last)
    },
    reset: (checkpoint) => {
      earlierRuns = noTraffic
      offset = Option.match(checkpoint, { onNone: () => noTraffic, onSome: trafficOf })
    }
  }
}

// internal

const trafficOf = ({ tcpRx, tcpTx, udpRx, udpTx }: Checkpoint): Traffic => ({
  tcprx: tcpRx,
  tcptx: tcpTx,
  udprx: udpRx,
  udptx: udpTx
})

const sum = (earlier: Traffic, run: Checkpoint, offset: Traffic): Traffic => ({
  tcprx: earlier.tcprx + run.tcpRx - offset.tcprx,
  tcptx: earlier.tcptx + run.tcpTx - offset.tcptx,
  udprx: earlier.udprx + run.udpRx - offset.udprx,
  udptx: earlier.udptx + run.udpTx - offset.udptx
})
