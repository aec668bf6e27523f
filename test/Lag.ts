/**
 * How far a busy machine delays a test that measures real time. Its bounds grow by that, and by nothing on an idle machine.
 */

const tickMillis = 10
/** What a timer is late on an idle machine. */
const usualMillis = 4
/** A visit passes through several processes, each of which waits for its turn. */
const hops = 6

/** Starts to watch; the returned function stops, and gives the milliseconds by which a bound may grow. */
export const watch = (): (() => number) => {
  let late = 0
  let due = performance.now() + tickMillis
  const tick = setInterval(() => {
    const now = performance.now()
    late += Math.max(0, now - due - usualMillis)
    due = now + tickMillis
  }, tickMillis)
  return () => {
    clearInterval(tick)
    return hops * (late + Math.max(0, performance.now() - due - usualMillis))
  }
}

/**
 * Repeats what is measured until it takes at most so long; the machine can only add time. Fails when it never did, with the
 * milliseconds of each attempt.
 */
export const within = async (limitMillis: number, attempt: () => Promise<number>): Promise<void> => {
  const took: Array<string> = []
  for (let tries = 0; tries < 5; tries++) {
    const lag = watch()
    const millis = await attempt()
    const allowed = limitMillis + lag()
    if (millis <= allowed) return
    took.push(`${Math.round(millis)} of ${Math.round(allowed)}`)
  }
  throw new Error(`expected at most ${limitMillis} ms, and what the machine was late: ${took.join("; ")}`)
}
