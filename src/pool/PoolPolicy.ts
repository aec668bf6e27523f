/**
 * How many connections a pool should hold and how often to look: a pure function of what the last fill saw, and the
 * same as a `Schedule`. A host can provide a policy of its own.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Decision from "effect/ScheduleDecision"
import * as Interval from "effect/ScheduleInterval"

export interface State {
  /** Connections to keep idle. */
  readonly capacity: number
  /** The wait before the next look. */
  readonly interval: Duration.Duration
  /** Visitors a second, smoothed over some two seconds. */
  readonly rate: number
}

/** What happened since the last look. */
export interface Seen {
  /** Milliseconds since the last look. */
  readonly elapsed: number
  /** Connections idle now. */
  readonly idle: number
  /** Connections handed out. */
  readonly taken: number
  /** Connections opened, and tried in vain. */
  readonly opened: number
  readonly failed: number
}

export interface Options {
  readonly minCapacity: number
  readonly maxCapacity: number
  readonly minInterval: Duration.Duration
  readonly maxInterval: Duration.Duration
}

/** What a dialing pool follows. `layer` adapts to the rate of visitors. */
export class PoolPolicy extends Context.Tag("nodepass/PoolPolicy")<
  PoolPolicy,
  {
    /** Connections to keep idle before the first output of the schedule. */
    readonly initialCapacity: (options: Options) => number
    /**
     * Takes what happened since the last step, waits until the next step is due, and yields the connections to keep idle.
     *
     * The pool keeps at most `maxCapacity`. When the schedule ends, the pool keeps the last capacity.
     */
    readonly schedule: (options: Options) => Schedule.Schedule<{ readonly capacity: number }, Seen>
  }
>() {}

export const initial = (options: Options): State => ({
  capacity: options.minCapacity,
  interval: options.minInterval,
  rate: 0
})

const memoryMillis = 2000
const stepMillis = 100

/**
 * One move of the policy.
 *
 * Capacity rises to what a second at the present rate will take, at most doubling; it sinks by an eighth of the excess
 * while nearly everything stays idle, and by a fifth when most attempts fail. The interval shortens while the pool is low, and lengthens while it is full or attempts fail.
 */
export const next = (state: State, seen: Seen, options: Options): State => {
  const fresh = 1 - Math.exp(-seen.elapsed / memoryMillis)
  const rate = seen.elapsed > 0 ? state.rate * (1 - fresh) + ((seen.taken * 1000) / seen.elapsed) * fresh : state.rate
  const idle = seen.idle / state.capacity
  const low = idle < 0.2
  const full = idle > 0.8
  const failing = seen.failed > 4 * seen.opened
  const wanted = Math.max(options.minCapacity, Math.ceil(rate))
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
    rate
  }
}

/** The policy as a `Schedule`: fed what was seen, it yields the new state after its interval. */
export const schedule = (options: Options): Schedule.Schedule<State, Seen> =>
  Schedule.makeWithState(initial(options), (now, seen: Seen, state) => {
    const moved = next(state, seen, options)
    return Effect.succeed([
      moved,
      moved,
      Decision.continueWith(Interval.after(now + Duration.toMillis(moved.interval)))
    ])
  })

/** Adapts the capacity to the rate of visitors, as `next` does. */
export const layer: Layer.Layer<PoolPolicy> = Layer.succeed(PoolPolicy, {
  initialCapacity: (options) => initial(options).capacity,
  schedule
})

// internal

const clamp = (n: number, min: number, max: number): number => Math.min(Math.max(n, min), max)
