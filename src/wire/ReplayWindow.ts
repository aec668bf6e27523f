/**
 * Remembers which numbers were seen, in bounded memory, so that each counts once.
 */

/** How far below the highest number others are remembered. A multiple of 32. */
export const window = 65_536

/**
 * Returns whether a number is new, and remembers it.
 *
 * Numbers arrive nearly in order: one that is `window` or more below the highest counts as seen. `from` is the lowest number
 * that can be new; it defaults to `0`. Takes `window` bits from the start: a `Set` of as many numbers grows to 2.5 MiB.
 */
export const make = (from = 0): ((n: number) => boolean) => {
  const recent = makeBits(window)
  let highest = from - 1
  return (n) => {
    if (n < from || n <= highest - window) return false
    // Above the highest, a bit is still that of a number that is forgotten now.
    if (n <= highest && recent.has(n)) return false
    if (n - highest > window) recent.clear()
    else for (let passed = highest + 1; passed <= n; passed++) recent.delete(passed)
    recent.add(n)
    highest = Math.max(highest, n)
    return true
  }
}

// internal

/** One bit for each number modulo `size`. */
const makeBits = (size: number) => {
  const words = new Uint32Array(size / 32)
  const word = (n: number) => words[(n % size) >>> 5] ?? 0
  // Shifts count modulo 32.
  const bit = (n: number) => 1 << (n % size)
  return {
    has: (n: number) => (word(n) & bit(n)) !== 0,
    add: (n: number) => void (words[(n % size) >>> 5] = word(n) | bit(n)),
    delete: (n: number) => void (words[(n % size) >>> 5] = word(n) & ~bit(n)),
    clear: () => void words.fill(0)
  }
}
