/**
 * Remembers which numbers were seen, in bounded memory, so that each counts once.
 */

/** How far below the highest number others are remembered. */
export const window = 65_536

/**
 * Returns whether a number is new, and remembers it.
 *
 * Numbers arrive nearly in order: one that is `window` or more below the highest counts as seen. `from` is the lowest number
 * that can be new; it defaults to `0`.
 */
export const make = (from = 0): ((n: number) => boolean) => {
  const recent = new Set<number>()
  let highest = from - 1
  return (n) => {
    if (n < from || n <= highest - window || recent.has(n)) return false
    if (n - highest > window) recent.clear()
    else for (let passed = highest + 1; passed <= n; passed++) recent.delete(passed - window)
    recent.add(n)
    highest = Math.max(highest, n)
    return true
  }
}
