/**
 * The congestion control of the connections between the two sides of a tunnel.
 */
import * as Fs from "node:fs"
import type { Path } from "../../relay/Relay.js"
import type { Kernel } from "./Kernel.js"
import { options } from "./ffi/Sockets.js"

export interface Congestion {
  /** Sets the congestion control of a connection, unless it is the one of the system. */
  readonly apply: (fd: number) => void
  /** Takes measurements of connections since the last call. Returns a line for the log when it changes the congestion control. */
  readonly learn: (paths: ReadonlyArray<Path>) => string | undefined
  /** A line for the log when the wanted congestion control is not available. */
  readonly problem: string | undefined
}

/** What the system has. */
export interface Choices {
  /** The congestion control of new connections. */
  readonly usual: string
  /** Whether this process may set it. */
  readonly allows: (name: string) => boolean
  /** All of them, separated by spaces. */
  readonly available: string
}

export const choices = ({ libc, sockets }: Kernel): Choices => {
  const allows = (name: string) => {
    const fd = sockets.open(4)
    if (fd < 0) return false
    const result = sockets.setText(fd, options.congestion, name)
    libc.close(fd)
    return result >= 0
  }
  return {
    usual: readSetting("tcp_congestion_control"),
    allows,
    available: readSetting("tcp_available_congestion_control")
  }
}

/**
 * `wanted` is a name, or `auto`. `set` sets the congestion control of a connection.
 *
 * `auto` keeps the one of the system until the path loses packets and has a long round trip, where cubic is slow because it
 * takes loss for congestion. Then it sets BBR, if available, until the path loses almost nothing.
 */
export const make = (
  wanted: string,
  { allows, available, usual }: Choices,
  set: (fd: number, name: string) => void
): Congestion => {
  const isAuto = wanted === "auto"
  const isAvailable = isAuto || wanted === usual || allows(wanted)
  const forLoss = isAuto && usual !== "bbr" && allows("bbr") ? "bbr" : usual
  let current = isAuto || !isAvailable ? usual : wanted
  let mustSet = current !== usual
  const sums = { segments: 0, retransmitted: 0, rttMillis: 0 }
  return {
    apply: (fd) => {
      if (mustSet) set(fd, current)
    },
    learn: (paths) => {
      if (forLoss === usual) return undefined
      for (const { retransmitted, rttMillis, segments } of paths) {
        sums.segments += segments
        sums.retransmitted += retransmitted
        sums.rttMillis += rttMillis * segments
      }
      if (sums.segments < minSegments) return undefined
      const loss = sums.retransmitted / sums.segments
      const rttMillis = sums.rttMillis / sums.segments
      Object.assign(sums, { segments: 0, retransmitted: 0, rttMillis: 0 })
      const isLossy = current === usual ? loss >= highLoss && rttMillis >= longRttMillis : loss >= lowLoss
      const next = isLossy ? forLoss : usual
      if (next === current) return undefined
      current = next
      // From now on always: open connections have the previous one.
      mustSet = true
      return `cc: connections now use ${current}: ${(loss * 100).toFixed(2)} % of segments were retransmitted, at a round trip of ${rttMillis.toFixed(1)} ms`
    },
    problem: isAvailable
      ? undefined
      : `cc: ${wanted} is not available here; connections keep ${usual} (available: ${available})`
  }
}

// internal

/** Segments that a measurement needs. */
const minSegments = 5000
/** The share of retransmitted segments that makes a path lossy, and the share below which it is not lossy any more. */
const [highLoss, lowLoss] = [0.001, 0.0002]
const longRttMillis = 5

const readSetting = (name: string): string => {
  try {
    return Fs.readFileSync(`/proc/sys/net/ipv4/${name}`, "utf8").trim()
  } catch {
    return "unknown"
  }
}
