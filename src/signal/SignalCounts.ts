/**
 * Signals and control connections of a tunnel so far, over all its sessions. Plain counters, to which each session adds.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

export interface Counts {
  /** Signals sent, including those sent again. */
  sent: number
  /** Signals received, including those received again. */
  received: number
  /** Signals sent again: the peer did not acknowledge them in time, or the control connection was replaced. */
  resent: number
  /** Sessions begun. */
  sessions: number
  /** Control connections that resumed a session. */
  resumed: number
}

const zero = (): Counts => ({ sent: 0, received: 0, resent: 0, sessions: 0, resumed: 0 })

export class SignalCounts extends Context.Tag("nodepass/SignalCounts")<SignalCounts, Counts>() {}

export const layer: Layer.Layer<SignalCounts> = Layer.sync(SignalCounts, zero)
