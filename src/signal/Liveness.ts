/**
 * Whether a peer is there, judged by how long it has been silent and how regularly it answered before: a phi accrual
 * failure detector (Hayashibara et al., 2004) over the answers to pings.
 *
 * Phi is how unlikely so long a silence is for a peer that lives, as a power of ten: 3 is one in a thousand.
 */

/** `alive`: heard of in time. `suspect`: later than nearly ever before. `lost`: so late that it is taken for gone. */
export type State = "alive" | "suspect" | "lost"

export interface Liveness {
  /** It said something. */
  readonly received: (now: number) => void
  /** It answered a ping. */
  readonly pong: (now: number) => void
  readonly phi: (now: number) => number
  readonly state: (now: number) => State
  /** This process itself was held up so long: none of it was the peer's silence. */
  readonly excuse: (millis: number) => void
  /** Milliseconds since it said something. */
  readonly silence: (now: number) => number
}

export interface Options {
  /** Milliseconds between two pings. */
  readonly interval: number
  /** Milliseconds on any clock that runs steadily. */
  readonly now: number
}

/** A busy machine says nothing for some hundred milliseconds now and then. */
const leastMillis = 1000

/** It was heard of when it is made, and every moment below is on one clock. */
export const make = ({ interval, now }: Options): Liveness => {
  let last = now
  let answer: number | undefined
  // Before anything is known: an answer each interval, give or take a quarter.
  let mean = interval
  let deviation = interval / 4

  const phi = (now: number) => {
    const y = (now - last - mean) / Math.max(deviation, interval / 8)
    // The logistic approximation of the normal distribution, as Akka has it.
    const e = Math.exp(-y * (1.5976 + 0.070566 * y * y))
    return y > 0 ? -Math.log10(e / (1 + e)) : -Math.log10(1 - 1 / (1 + e))
  }

  return {
    received: (now) => {
      last = Math.max(last, now)
    },
    pong: (now) => {
      if (answer !== undefined) {
        // One long pause is not to make the detector patient for good.
        const gap = Math.min(now - answer, 2 * interval)
        deviation += (Math.abs(gap - mean) - deviation) / 8
        mean += (gap - mean) / 8
      }
      answer = now
      last = Math.max(last, now)
    },
    phi,
    state: (now) => {
      const silence = now - last
      if (silence >= Math.max(longest * interval, leastMillis)) return "lost"
      if (silence < Math.max(shortest * interval, leastMillis)) return "alive"
      const level = phi(now)
      return level >= lost ? "lost" : level >= suspect ? "suspect" : "alive"
    },
    excuse: (millis) => {
      last += millis
      if (answer !== undefined) answer += millis
    },
    silence: (now) => now - last
  }
}

// internal

const suspect = 3
const lost = 8
/** Report intervals of silence before which nobody is suspected, and after which anybody is lost. */
const shortest = 1.25
const longest = 2.5
