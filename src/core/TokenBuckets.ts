/**
 * Token buckets by key, in memory that does not grow: each key has one of a fixed number of buckets. Keys that share a
 * bucket by chance share its tokens; which ones do so depends on the seed, so that a peer cannot choose it.
 */

export interface TokenBuckets {
  /** Takes one token. Returns `false` when there is none. */
  readonly take: (key: string) => boolean
  /** Returns a token that was taken. */
  readonly giveBack: (key: string) => void
}

export interface Options {
  /** Tokens that a bucket holds at most, and at first. */
  readonly capacity: number
  /** Tokens that a bucket gets back. */
  readonly perSecond: number
  /** How many buckets there are. Defaults to `65536`, which take 1 MiB. */
  readonly buckets?: number | undefined
  /** Milliseconds that never go back. */
  readonly now: () => number
  /** A random integer. */
  readonly seed: number
}

export const make = ({ buckets = 65_536, capacity, now, perSecond, seed }: Options): TokenBuckets => {
  const tokens = new Float64Array(buckets).fill(capacity)
  const filledAt = new Float64Array(buckets)
  /** The bucket of the key, filled up to now. */
  const find = (key: string): number => {
    const bucket = hash(key, seed) % buckets
    const at = now()
    const gained = ((at - (filledAt[bucket] ?? 0)) / 1000) * perSecond
    tokens[bucket] = Math.min(capacity, (tokens[bucket] ?? 0) + gained)
    filledAt[bucket] = at
    return bucket
  }
  return {
    take: (key) => {
      const bucket = find(key)
      const left = tokens[bucket] ?? 0
      if (left < 1) return false
      tokens[bucket] = left - 1
      return true
    },
    giveBack: (key) => {
      const bucket = find(key)
      tokens[bucket] = Math.min(capacity, (tokens[bucket] ?? 0) + 1)
    }
  }
}

// internal

/** FNV-1a, begun with the seed, and the last step of MurmurHash3, which spreads similar keys. */
const hash = (key: string, seed: number): number => {
  let bits = 0x811c9dc5 ^ seed
  for (let at = 0; at < key.length; at++) bits = Math.imul(bits ^ key.charCodeAt(at), 0x01000193)
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
