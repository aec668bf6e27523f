/**
 * Judges whether a peer is alive, from how long it has been silent and how regularly it answered pings before: a phi accrual
 * failure detector (Hayashibara et al., 2004).
 *
 * Phi is the improbability of a silence this long of a live peer, as a power of ten: 3 is one in a thousand.
 */

/** `alive`: silent no longer than usual. `suspect`: silent for unusually long. `lost`: silent for so long that it is given up. */
export type State = "alive" | "suspect" | "lost"

export interface Liveness {
  /** The peer sent something. */
  readonly received: (now: number) => void
  /** The peer answered a ping. */
  readonly pong: (now: number) => void
  readonly phi: (now: number) => number
  readonly state: (now: number) => State
  /** Does not count this time as silence: this process was stopped or busy. */
  readonly excuse: (millis: number) => void
  /** Milliseconds since the peer sent something. */
  readonly silence: (now: number) => number
}

export interface Options {
  /** Milliseconds between two pings. */
  readonly interval: number
  /** Milliseconds on a steady clock. */
  readonly now: number
}

/** A busy machine sends nothing for some hundred milliseconds now and then, which must not make it suspect. */
const minSilenceMillis = 1000

/** A detector for a peer that has just sent something. All times are on one clock. */
export const make = ({ interval, now }: Options): Liveness => {
  let last = now
  let answer: number | undefined
  // The estimate before the first answers: one each interval, plus or minus a quarter.
  let mean = interval
  let deviation = interval / 4

  const phi = (now: number) => {
    const y = (now - last - mean) / Math.max(deviation, interval / 8)
    // The logistic approximation of the normal distribution, the same as in Akka.
    const e = Math.exp(-y * (1.5976 + 0.070566 * y * y))
    return y > 0 ? -Math.log10(e / (1 + e)) : -Math.log10(1 - 1 / (1 + e))
  }

  return {
    received: (now) => {
      last = Math.max(last, now)
    },
    pong: (now) => {
      if (answer !== undefined) {
        // One long pause must not make the detector slow for ever.
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
      if (silence >= Math.max(maxSilence * interval, minSilenceMillis)) return "lost"
      if (silence < Math.max(minSilence * interval, minSilenceMillis)) return "alive"
      const level = phi(now)
      return level >= lostPhi ? "lost" : level >= suspectPhi ? "suspect" : "alive"
    },
    excuse: (millis) => {
      last += millis
      if (answer !== undefined) answer += millis
    },
    silence: (now) => now - last
  }
}

// internal

const suspectPhi = 3
const lostPhi = 8
/** Report intervals of silence below which a peer is never suspected, and from which it is always lost. */
const minSilence = 1.25
const maxSilence = 2.5
