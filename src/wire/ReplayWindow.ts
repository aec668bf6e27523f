/**
 * Numbers that count once: which were seen before, in bounded memory.
 */

/** How far behind the highest a number is remembered. */
export const window = 65_536

/**
 * Says of each number whether it is new.
 *
 * Numbers come nearly in order: one that is `window` or more behind the highest counts as seen. `from` is the first
 * that may be new, and defaults to `0`.
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
