/**
 * The memory of running commands: what is resident, and what is in use once all garbage is collected.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Timers from "node:timers/promises"
import { pathToFileURL } from "node:url"
import type { Nodepass } from "../live/command/Nodepass.js"

/** The environment of commands whose memory in use is measured. */
export const environment = {
  NODE_OPTIONS: `--expose-gc --import=${pathToFileURL(Path.join(import.meta.dirname, "HeapProbe.js")).href}`
}

/** The most bytes that were in memory since the last call, or since the start. */
export const peakBytes = (process: Nodepass): number => {
  const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(Fs.readFileSync(`/proc/${process.pid}/status`, "utf8"))?.[1]) * 1024
  // As proc(5) has it: 5 resets the peak to what is resident now.
  Fs.writeFileSync(`/proc/${process.pid}/clear_refs`, "5")
  return peak
}

/** Bytes of JavaScript values and of the buffers that they hold, without garbage. */
export const bytesInUse = async ({ child, line, log }: Nodepass): Promise<number> => {
  const before = log().split(answer).length
  child.kill("SIGUSR2")
  for (;;) {
    const found = log().split(answer)
    if (found.length > before) return Number.parseInt(found.at(-1) ?? "", 10)
    // Fails with its log when the process has ended.
    if (child.exitCode !== null) await line(/^$/)
    await Timers.setTimeout(20)
  }
}

/** Prints a row of bytes as MiB, after its label. */
export const print = (label: string, bytes: ReadonlyArray<number>, ...last: ReadonlyArray<string>) =>
  printCells(label, [...bytes.map((bytes) => (bytes / 2 ** 20).toFixed(1)), ...last])

export const printCells = (label: string, cells: ReadonlyArray<string>) =>
  console.log(label.padEnd(24) + cells.map((cell) => ` ${cell.padStart(11)}`).join(""))

// internal

/** See HeapProbe.js. */
const answer = "bytes in use: "
