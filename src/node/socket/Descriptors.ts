/**
 * How many file descriptors this process may have open.
 */
import * as Fs from "node:fs"

/**
 * The soft limit, which Node raises to the hard limit when it starts. `Infinity` where it is unknown: only Linux lists it in
 * a file.
 */
export const limit = (): number => {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(Fs.readFileSync("/proc/self/limits", "latin1")) ?? []
    return soft === undefined ? Infinity : Number(soft)
  } catch {
    return Infinity
  }
}
