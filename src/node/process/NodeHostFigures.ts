/**
 * `HostFigures` from `/proc` on Linux, and from `node:os` on other systems.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import * as Os from "node:os"
import process from "node:process"
import { type Figures, HostFigures } from "../../master/HostFigures.js"
import * as ProcessFigures from "./ProcessFigures.js"

export const layer: Layer.Layer<HostFigures> = Layer.effect(
  HostFigures,
  Effect.gen(function* () {
    let sample = cpuSample()
    let cpu = -1
    let at = yield* Clock.currentTimeMillis
    return HostFigures.of({
      os: process.platform === "win32" ? "windows" : process.platform,
      arch: arches[process.arch] ?? process.arch,
      name: Os.hostname(),
      process: ProcessFigures.read,
      read: Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        // The system counts CPU time in ticks of 10 ms: a shorter interval has too few of them.
        if (now - at >= 200) {
          const next = cpuSample()
          const total = next.total - sample.total
          if (total > 0) cpu = Math.round((1 - (next.idle - sample.idle) / total) * 100)
          sample = next
          at = now
        }
        const [memory, net, disk] = yield* Effect.all(
          [text("/proc/meminfo"), text("/proc/net/dev"), text("/proc/diskstats")],
          {
            concurrency: 3
          }
        )
        return {
          cpu,
          ...memoryOf(memory),
          ...netOf(net),
          ...diskOf(disk),
          sysup: Math.floor(Os.uptime())
        } satisfies Figures
      })
    })
  })
)

/** From `/proc/meminfo`, or from `node:os` if the text is empty. */
export const memoryOf = (
  text: string
): Pick<Figures, "mem_free" | "mem_total" | "mem_used" | "swap_free" | "swap_total" | "swap_used"> => {
  const value = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024
  const total = value("MemTotal") || Os.totalmem()
  const free = value("MemAvailable") || Os.freemem()
  const swap = value("SwapTotal")
  const swapFree = value("SwapFree")
  return {
    mem_total: total,
    mem_used: total - free,
    mem_free: free,
    swap_total: swap,
    swap_used: swap - swapFree,
    swap_free: swapFree
  }
}

/** From `/proc/net/dev`, without virtual interfaces. */
export const netOf = (text: string): Pick<Figures, "netrx" | "nettx"> => {
  let netrx = 0
  let nettx = 0
  for (const [, name = "", fields = ""] of text.matchAll(/^\s*([^\s:]+):\s*(.*)$/gm)) {
    if (/^(lo|veth|docker|br-|virbr|podman|cni|flannel|cali|tun|tap|wg|dummy|ifb)/.test(name)) continue
    const numbers = fields.trim().split(/\s+/).map(Number)
    netrx += numbers[0] ?? 0
    nettx += numbers[8] ?? 0
  }
  return { netrx, nettx }
}

/** From `/proc/diskstats`: whole disks, not their partitions. */
export const diskOf = (text: string): Pick<Figures, "diskr" | "diskw"> => {
  let diskr = 0
  let diskw = 0
  for (const line of text.split("\n")) {
    const [, , name = "", , , read = "0", , , , written = "0"] = line.trim().split(/\s+/)
    if (!/^([shv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)$/.test(name)) continue
    // The kernel counts in units of 512 bytes, whatever the sector size of the disk.
    diskr += Number(read) * 512
    diskw += Number(written) * 512
  }
  return { diskr, diskw }
}

// internal

/** NodePass names architectures as Go does. */
const arches: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" }

const cpuSample = () => {
  let idle = 0
  let total = 0
  for (const { times } of Os.cpus()) {
    idle += times.idle
    total += times.user + times.nice + times.sys + times.idle + times.irq
  }
  return { idle, total }
}

/** Empty if the file cannot be read. */
const text = (file: string): Effect.Effect<string> =>
  Effect.orElseSucceed(
    Effect.tryPromise((signal) => Fs.promises.readFile(file, { encoding: "utf8", signal })),
    () => ""
  )
