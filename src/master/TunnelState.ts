/**
 * The state of a managed tunnel: its status, the last checkpoint of its current run, and its traffic over all runs.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Checkpoint } from "../tunnel/Checkpoint.js"
import type { Tunnel } from "../tunnel/Tunnel.js"
import type { Status, Traffic } from "./Instance.js"
import * as TrafficTotal from "./TrafficTotal.js"

/** The status now, and the statistics of the last `refresh`. */
export interface State {
  readonly status: Status
  /** Why the status is `error`, otherwise empty. */
  readonly error: string
  /** Its first attempt to start has not ended, or has not begun. */
  readonly isStarting: boolean
  /** `None` while the tunnel does not run. */
  readonly checkpoint: Option.Option<Checkpoint>
  /** Bytes over all runs. */
  readonly traffic: Traffic
}

export interface TunnelState {
  readonly read: () => State
  /** Ends the start. */
  readonly setStatus: (status: Status, error?: string) => void
  /** The tunnel is being started, or will be. */
  readonly beginStart: () => void
  /** Reads the statistics of the running tunnel. */
  readonly refresh: Effect.Effect<void>
  /** Reads the statistics, and calls `onChange` if the tunnel serves no longer, or again. */
  readonly noteServing: Effect.Effect<void>
  /** Sets the traffic to zero. */
  readonly resetTraffic: Effect.Effect<void>
  readonly startRun: (tunnel: Tunnel["Type"]) => Effect.Effect<void>
  /** Reads the statistics of the run a last time. Has no effect without a run. */
  readonly endRun: Effect.Effect<void>
}

export interface Options {
  /** Bytes of earlier runs. */
  readonly traffic: Traffic
  /** Called after each change of the status or of `serving`, and after a reset of the traffic. */
  readonly onChange: () => void
}

/** The state of a stopped tunnel. */
export const make = ({ onChange, traffic }: Options): TunnelState => {
  const total = TrafficTotal.make(traffic)
  let tunnel: Tunnel["Type"] | undefined
  let status: Status = "stopped"
  let error = ""
  let isStarting = false
  let checkpoint: Option.Option<Checkpoint> = Option.none()

  const refresh = Effect.suspend(() => {
    const running = tunnel
    if (running === undefined) return Effect.void
    return Effect.map(running.checkpoint, (now) => {
      if (tunnel === running) checkpoint = Option.some(now)
    })
  })
  return {
    read: () => ({ status, error, isStarting, checkpoint, traffic: total.read(checkpoint) }),
    beginStart: () => {
      isStarting = true
    },
    setStatus: (nextStatus, nextError = "") => {
      isStarting = false
      if (nextStatus === status && nextError === error) return
      status = nextStatus
      error = nextError
      onChange()
    },
    refresh,
    noteServing: Effect.suspend(() => {
      const before = Option.exists(checkpoint, isServing)
      return Effect.map(refresh, () => {
        if (Option.exists(checkpoint, isServing) !== before) onChange()
      })
    }),
    resetTraffic: Effect.map(refresh, () => {
      total.reset(checkpoint)
      onChange()
    }),
    startRun: (started) =>
      Effect.suspend(() => {
        tunnel = started
        total.startRun()
        return refresh
      }),
    endRun: Effect.map(refresh, () => {
      total.endRun(checkpoint)
      tunnel = undefined
      checkpoint = Option.none()
    })
  }
}

// internal

const isServing = ({ status }: Checkpoint): boolean => status === "serving"
