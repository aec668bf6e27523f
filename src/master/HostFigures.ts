/**
 * Statistics of the master's machine, for `/info` and metrics.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Process } from "../core/ProcessMetrics.js"

/** Bytes unless described otherwise; 0 where the system does not provide the number. */
export const Figures = Schema.Struct({
  cpu: Schema.Number.annotations({ description: "percent of all cores; -1 while unknown" }),
  mem_total: Schema.Number,
  mem_used: Schema.Number,
  mem_free: Schema.Number,
  swap_total: Schema.Number,
  swap_used: Schema.Number,
  swap_free: Schema.Number,
  netrx: Schema.Number.annotations({ description: "received by physical interfaces since the system's start" }),
  nettx: Schema.Number.annotations({ description: "sent by physical interfaces since the system's start" }),
  diskr: Schema.Number.annotations({ description: "read from disks since the system's start" }),
  diskw: Schema.Number.annotations({ description: "written to disks since the system's start" }),
  sysup: Schema.Number.annotations({ description: "seconds since the system's start" })
})
export type Figures = typeof Figures.Type

export class HostFigures extends Context.Tag("nodepass/HostFigures")<
  HostFigures,
  {
    /** `linux`, `darwin`, … */
    readonly os: string
    /** `amd64`, `arm64`, … */
    readonly arch: string
    /** The host name. */
    readonly name: string
    /** This process. */
    readonly process: Effect.Effect<Process>
    /** Never fails: an unknown number is 0, or -1 for `cpu`. */
    readonly read: Effect.Effect<Figures>
  }
>() {}
