/**
 * How many connections a pool keeps idle and how often it checks: a pure function from what was observed to the next
 * state, and the same as a `Schedule`. A host can provide a policy of its own.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Decision from "effect/ScheduleDecision"
import * as Interval from "effect/ScheduleInterval"
import * as Forecast from "./Forecast.js"

export interface State {
  /** Connections to keep idle. */
  readonly capacity: number
  /** The wait before the next step. */
  readonly interval: Duration.Duration
  /** Visitors per second, averaged over about two seconds. */
  readonly rate: number
  /** Connections to keep idle for a burst that is due; `0` while none is. */
  readonly expected: number
  readonly past: Forecast.State
}

/** What was observed since the last step. */
export interface Observed {
  /** Milliseconds since the last step. */
  readonly elapsed: number
  /** Connections idle now. */
  readonly idle: number
  /** Connections handed out. */
  readonly taken: number
  /** Dials that succeeded, and that failed. */
  readonly opened: number
  readonly failed: number
}

export interface Options {
  readonly minCapacity: number
  readonly maxCapacity: number
  readonly minInterval: Duration.Duration
  readonly maxInterval: Duration.Duration
}

/** Decides how many connections a dialing pool keeps idle. `layer` adapts to the demand, and forecasts it. */
export class PoolPolicy extends Context.Tag("nodepass/PoolPolicy")<
  PoolPolicy,
  {
    /** Connections to keep idle before the first output of the schedule. */
    readonly initialCapacity: (options: Options) => number
    /**
     * Takes what happened since the last step, waits until the next step is due, and yields the connections to keep idle.
     *
     * Those that are taken are replaced up to `capacity`. Where more are `expected` to be needed at once, that many are kept
     * idle; those are not replaced before the next step.
     *
     * The pool keeps at most `maxCapacity`. When the schedule ends, the pool keeps the last capacity.
     */
    readonly schedule: (
      options: Options
    ) => Schedule.Schedule<{ readonly capacity: number; readonly expected?: number | undefined }, Observed>
  }
>() {}

export const initial = (options: Options): State => ({
  capacity: options.minCapacity,
  interval: options.minInterval,
  rate: 0,
  expected: 0,
  past: Forecast.initial
})

/**
 * One step of the policy.
 *
 * The capacity grows to what one second at the present rate takes, at most doubling; while the demand rises steadily, at the
 * rate that it will have when the capacity is in force. It shrinks by an eighth of the
 * excess while more than 80 % of it is idle, and by a fifth when more than 80 % of the dials fail. The interval
 * shortens while less than 20 % is idle; it lengthens while more than 80 % is idle or more than 80 % of the dials fail.
 *
 * What is `expected` are the connections for a burst that is due, where bursts have come at regular times: see `Forecast`.
 */
export const next = (state: State, observed: Observed, options: Options): State => {
  const weight = 1 - Math.exp(-observed.elapsed / averagedMillis)
  const rate =
    observed.elapsed > 0
      ? state.rate * (1 - weight) + ((observed.taken * 1000) / observed.elapsed) * weight
      : state.rate
  const idle = observed.idle / state.capacity
  const low = idle < 0.2
  const full = idle > 0.8
  const failing = observed.failed > 4 * observed.opened
  const intervalMillis = Math.max(shortestMillis, Duration.toMillis(options.maxInterval))
  const past = Forecast.record(state.past, observed, intervalMillis)
  const rising = (Forecast.trend(past) * 1000) / intervalMillis
  const wanted = Math.max(options.minCapacity, Math.ceil(rate), Math.ceil(rising))
  const capacity = failing
    ? Math.floor(state.capacity * 0.8)
    : wanted > state.capacity
      ? Math.min(wanted, state.capacity * 2)
      : full
        ? state.capacity - Math.ceil((state.capacity - wanted) / 8)
        : state.capacity
  const step = failing || full ? stepMillis : low ? -stepMillis : 0
  return {
    capacity: clamp(capacity, options.minCapacity, options.maxCapacity),
    interval: Duration.millis(
      clamp(
        Duration.toMillis(state.interval) + step,
        Duration.toMillis(options.minInterval),
        Duration.toMillis(options.maxInterval)
      )
    ),
    rate,
    expected: failing ? 0 : Math.min(Forecast.burst(past), options.maxCapacity),
    past
  }
}

/** The policy as a `Schedule`: takes what was observed and yields the new state after its interval. */
export const schedule = (options: Options): Schedule.Schedule<State, Observed> =>
  Schedule.makeWithState(initial(options), (now, observed: Observed, state) => {
    const following = next(state, observed, options)
    return Effect.succeed([
      following,
      following,
      Decision.continueWith(Interval.after(now + Duration.toMillis(following.interval)))
    ])
  })

/** Adapts the capacity to the rate of visitors and to a forecast, as `next` does. */
export const layer: Layer.Layer<PoolPolicy> = Layer.succeed(PoolPolicy, {
  initialCapacity: (options) => initial(options).capacity,
  schedule
})

// internal

/** The time constant of the average rate. */
const averagedMillis = 2000
const stepMillis = 100
/** Demand is counted in intervals of at least this many milliseconds. */
const shortestMillis = 100

const clamp = (n: number, min: number, max: number): number => Math.min(Math.max(n, min), max)
