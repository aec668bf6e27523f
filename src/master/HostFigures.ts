/**
 * How the machine is doing, as the master's `/info` tells it.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** Bytes, unless it says otherwise; 0 where the system does not tell. */
export const Figures = Schema.Struct({
  cpu: Schema.Number.annotations({ description: "% of all cores, -1 while unknown" }),
  mem_total: Schema.Number,
  mem_used: Schema.Number,
  mem_free: Schema.Number,
  swap_total: Schema.Number,
  swap_used: Schema.Number,
  swap_free: Schema.Number,
  netrx: Schema.Number.annotations({ description: "of the physical interfaces, since the system's start" }),
  nettx: Schema.Number,
  diskr: Schema.Number.annotations({ description: "of the disks, since the system's start" }),
  diskw: Schema.Number,
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
    /** The machine's name. */
    readonly name: string
    /** This process's memory: bytes that it takes of the machine's. */
    readonly memory: Effect.Effect<number>
    /** Never fails: what cannot be told is 0, or -1 for `cpu`. */
    readonly read: Effect.Effect<Figures>
  }
>() {}
