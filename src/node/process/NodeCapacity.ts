/**
 * `Capacity` of this process: by the descriptors that it may open (Linux only) and the heap that V8 may use.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import * as V8 from "node:v8"
import { Capacity } from "../../relay/Capacity.js"

export const layer: Layer.Layer<Capacity> = Layer.effect(
  Capacity,
  Effect.map(
    Effect.suspend(() => descriptorLimit),
    (descriptors) => {
      const heapBytes = V8.getHeapStatistics().heap_size_limit
      return { visitors: visitorsFor({ descriptors, heapBytes }) }
    }
  )
)

export interface Limits {
  /** Descriptors that the process may open. */
  readonly descriptors: number
  readonly heapBytes: number
}

/** How many visitors fit, with a reserve of a quarter of the descriptors, at most 256, and half of the heap. */
export const visitorsFor = ({ descriptors, heapBytes }: Limits): number => {
  const reserve = Math.min(maxReserve, descriptors / 4)
  const byDescriptors = (descriptors - reserve) / descriptorsPerVisitor
  return Math.max(1, Math.floor(Math.min(byDescriptors, heapBytes / 2 / bytesPerVisitor)))
}

// internal

const maxReserve = 256

/** A TCP visitor and its pool connection, or a pool connection and its target. */
const descriptorsPerVisitor = 2

/** By 5,000 UDP sessions through a tunnel each side grew by 54 KiB a session, garbage included. A TCP visitor needs less. */
const bytesPerVisitor = 56 * 1024

/** The soft limit, which Node has raised to the hard one. No limit where `/proc` does not exist. */
const descriptorLimit = Effect.try(() => Fs.readFileSync("/proc/self/limits", "utf8")).pipe(
  Effect.map((text) => Number(/^Max open files +(\d+)/m.exec(text)?.[1] ?? Infinity)),
  Effect.orElseSucceed(() => Infinity)
)
