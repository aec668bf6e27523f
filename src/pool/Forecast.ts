/**
 * What a pool will be asked for, from what it was asked for: bursts that come at regular times, and a steady rise. Pure.
 *
 * The past is the demand of each of the last `maxIntervals` intervals. The period of bursts is the smallest one at which the
 * past resembles itself most (its autocorrelation); the rise is the straight line through the last intervals.
 */

/** The past, and what was found in it. */
export interface State {
  /** Connections asked for in each interval that is over, oldest first. */
  readonly demand: ReadonlyArray<number>
  /** Connections asked for in the interval that is not over, and milliseconds of it that have passed. */
  readonly open: number
  readonly elapsed: number
  /** Intervals from one burst to the next; `undefined` while none is found. */
  readonly period: number | undefined
  /** The median of `demand`: what is usual between two bursts. */
  readonly usual: number
}

export const initial: State = { demand: [], open: 0, elapsed: 0, period: undefined, usual: 0 }

/** Intervals that are remembered, at most. */
export const maxIntervals = 1024

/** Adds what was asked for in the last `elapsed` milliseconds. */
export const record = (
  state: State,
  { elapsed, taken }: { readonly elapsed: number; readonly taken: number },
  intervalMillis: number
): State => {
  const passed = state.elapsed + elapsed
  const open = state.open + taken
  const ended = Math.floor(passed / intervalMillis)
  if (!(ended >= 1)) return { ...state, open, elapsed: passed }
  // Where a step has the end of several intervals, it was late because of what happened last.
  const empty = Array.from({ length: Math.min(Math.max(0, ended - 2), maxIntervals) }, () => 0)
  const over = ended === 1 ? [open] : [state.open, ...empty, taken]
  const demand = [...state.demand, ...over].slice(-maxIntervals)
  const isQuiet = demand.every((count) => count === 0)
  return {
    demand: isQuiet ? [] : demand,
    open: 0,
    elapsed: passed % intervalMillis,
    period: isQuiet ? undefined : periodOf(demand),
    usual: isQuiet ? 0 : medianOf(demand)
  }
}

/**
 * Connections that the burst takes which is due in this interval or the next three, together with what is usual; `0` when
 * none is due or it has come.
 *
 * As many as the largest of the last four bursts took, but at most twice the third: so three have come. One that did not come
 * makes no difference, and two end the forecast. A burst may come an interval early or late.
 */
export const burst = ({ demand, open, period, usual }: State): number => {
  if (period === undefined) return 0
  const now = demand.length
  const above = (at: number) => Math.max(0, (demand[at] ?? 0) - usual)
  // Two intervals together: one may end in the middle of a burst.
  const between = (first: number, last: number) => {
    let most = 0
    for (let at = first; at <= last; at++) most = Math.max(most, above(at) + above(at + 1))
    return most
  }
  // A burst may be off by as much for each period that has passed, but no more than lets it be found once.
  const widest = (period - 2 - lead) / 2
  const [most = 0, , third = 0] = [1, 2, 3, 4]
    .map((periods) => {
      const before = now - periods * period
      const [late, early] = [Math.min(periods, Math.ceil(widest)), Math.min(periods, Math.floor(widest))]
      return between(before - late, before + early + lead)
    })
    .toSorted((left, right) => right - left)
  const come = Math.max(0, open - usual) + above(now - 1) + (widest >= 1.5 ? above(now - 2) : 0)
  const missing = Math.min(most, 2 * third) - come
  return missing > 0 ? Math.ceil(missing + usual) : 0
}

/** Connections that the next interval but one takes, if demand goes on to rise as it does; `0` when it does not rise. */
export const trend = ({ demand }: State): number => {
  if (demand.length < trendIntervals) return 0
  const last = demand.slice(-trendIntervals)
  const middle = (trendIntervals - 1) / 2
  const mean = last.reduce((sum, count) => sum + count, 0) / trendIntervals
  let [byTime, byCount, together] = [0, 0, 0]
  last.forEach((count, at) => {
    byTime += (at - middle) ** 2
    byCount += (count - mean) ** 2
    together += (at - middle) * (count - mean)
  })
  // A step from one level to another has 0.76 at most, and a burst less.
  if (together <= 0 || together ** 2 < straightness * byTime * byCount) return 0
  return mean + (together / byTime) * (trendIntervals + 1 + lead - middle)
}

// internal

/** What a policy decides is in force an interval later. */
const lead = 1

/** Two bursts that are nearer are one demand, which the average rate shows. */
const shortestPeriod = 5
/** A period is one when the past contains it so often. */
const leastPeriods = 3
/** The correlation of a past with itself that is called regular. Bursts of which each is off by one interval have 0.5 to 0.7. */
const regular = 0.5
/** The shortest period is used that resembles the past nearly as well as the best: its multiples do as well. */
const nearly = 0.85
const trendIntervals = 10
const straightness = 0.85

const medianOf = (values: ReadonlyArray<number>): number =>
  values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0

/** The smallest number of intervals after which the demand resembles itself most. */
const periodOf = (demand: ReadonlyArray<number>): number | undefined => {
  const longest = Math.floor(demand.length / leastPeriods)
  const likeness = likenessUpTo(longest + 1, demand)
  const at = (period: number) => likeness[period] ?? 0
  let best = regular
  for (let period = shortestPeriod; period <= longest; period++) best = Math.max(best, at(period))
  for (let period = shortestPeriod; period <= longest; period++) {
    const isPeak = at(period) >= at(period - 1) && at(period) >= at(period + 1)
    if (isPeak && at(period) >= Math.max(regular, nearly * best)) return period
  }
  return undefined
}

/** By number of intervals: the correlation of the demand with that of so many intervals before, from -1 to 1. */
const likenessUpTo = (longest: number, demand: ReadonlyArray<number>): Float64Array => {
  const count = demand.length
  // Each interval has a part of its neighbours, so that a burst that is off by one still meets the one before.
  const values = Float64Array.from(demand, (own, at) => 2 * own + (demand[at - 1] ?? own) + (demand[at + 1] ?? own))
  const mean = values.reduce((sum, value) => sum + value, 0) / count
  /** The sums of the squares of the first values. */
  const squares = new Float64Array(count + 1)
  for (let at = 0; at < count; at++) {
    const value = (values[at] ?? 0) - mean
    values[at] = value
    squares[at + 1] = (squares[at] ?? 0) + value * value
  }
  const total = squares[count] ?? 0
  const likeness = new Float64Array(longest + 1)
  for (let period = shortestPeriod - 1; period <= longest; period++) {
    let together = 0
    for (let at = period; at < count; at++) together += (values[at] ?? 0) * (values[at - period] ?? 0)
    const both = Math.sqrt((squares[count - period] ?? 0) * (total - (squares[period] ?? 0)))
    likeness[period] = both > 0 ? together / both : 0
  }
  return likeness
}
