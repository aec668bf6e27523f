/**
 * Which congestion control the connections between the two sides of a tunnel have.
 */
import * as Fs from "node:fs"
import type { Path } from "../../relay/Relay.js"
import type { Kernel } from "./Kernel.js"
import { options } from "./ffi/Sockets.js"

export interface Congestion {
  /** Sets it on a connection that may have another. */
  readonly apply: (fd: number) => void
  /** Takes note of how connections have fared since the last time. Says so when it means another choice from now on. */
  readonly learn: (paths: ReadonlyArray<Path>) => string | undefined
  /** Why what was asked for is not to be had. */
  readonly problem: string | undefined
}

/** What the system has, and lets this process use. */
export interface Choices {
  /** What a connection has by itself. */
  readonly usual: string
  readonly allows: (name: string) => boolean
  readonly all: string
}

export const choices = ({ libc, sockets }: Kernel): Choices => {
  const allows = (name: string) => {
    const fd = sockets.open(4)
    if (fd < 0) return false
    const result = sockets.setText(fd, options.congestion, name)
    libc.close(fd)
    return result >= 0
  }
  return { usual: setting("tcp_congestion_control"), allows, all: setting("tcp_available_congestion_control") }
}

/**
 * `auto`, or a name of the system's. `set` is given the name for a connection.
 *
 * `auto` leaves what the system has, until the path loses what cubic would take for congestion, and is long enough for
 * that to be slow: then BBR, where it can be had, until it loses next to nothing.
 */
export const make = (
  wanted: string,
  { all, allows, usual }: Choices,
  set: (fd: number, name: string) => void
): Congestion => {
  const isAuto = wanted === "auto"
  const isThere = isAuto || wanted === usual || allows(wanted)
  const remedy = isAuto && usual !== "bbr" && allows("bbr") ? "bbr" : usual
  let name = isAuto || !isThere ? usual : wanted
  let isOther = name !== usual
  const seen = { segments: 0, retransmitted: 0, rttMillis: 0 }
  return {
    apply: (fd) => {
      if (isOther) set(fd, name)
    },
    learn: (paths) => {
      if (remedy === usual) return undefined
      for (const { retransmitted, rttMillis, segments } of paths) {
        seen.segments += segments
        seen.retransmitted += retransmitted
        seen.rttMillis += rttMillis * segments
      }
      if (seen.segments < enough) return undefined
      const loss = seen.retransmitted / seen.segments
      const rttMillis = seen.rttMillis / seen.segments
      Object.assign(seen, { segments: 0, retransmitted: 0, rttMillis: 0 })
      const next =
        name === usual ? (loss >= lossy && rttMillis >= long ? remedy : usual) : loss < clean ? usual : remedy
      if (next === name) return undefined
      name = next
      // Those that have the other one are to be set back, too.
      isOther = true
      return `cc: ${name} from now on, since ${(loss * 100).toFixed(2)} % was sent again, at a round trip of ${rttMillis.toFixed(1)} ms`
    },
    problem: isThere ? undefined : `cc: ${wanted} cannot be had here, which has ${all}; connections keep ${usual}`
  }
}

// internal

/** Segments after which a share of them says something. */
const enough = 5000
/** Shares that were sent again: from which on it is a path that loses, and below which it is not. */
const [lossy, clean] = [0.001, 0.0002]
/** Milliseconds. */
const long = 5

const setting = (name: string): string => {
  try {
    return Fs.readFileSync(`/proc/sys/net/ipv4/${name}`, "utf8").trim()
  } catch {
    return "unknown"
  }
}
