/**
 * Signals and control connections of a tunnel so far, over all its sessions. Plain counters: a session adds to them.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

export interface Counts {
  /** Signals sent, those sent again included. */
  sent: number
  /** Signals received, each as often as it arrived. */
  received: number
  /** Signals sent again, because the peer did not acknowledge them or the control connection was replaced. */
  resent: number
  /** Sessions begun. */
  sessions: number
  /** Sessions resumed on another control connection. */
  resumed: number
}

const none = (): Counts => ({ sent: 0, received: 0, resent: 0, sessions: 0, resumed: 0 })

/** Without a layer nothing reads the counters. */
export class SignalCounts extends Context.Reference<SignalCounts>()("nodepass/SignalCounts", {
  defaultValue: none
}) {}

export const layer: Layer.Layer<SignalCounts> = Layer.sync(SignalCounts, none)
