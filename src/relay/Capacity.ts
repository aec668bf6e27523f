/**
 * What this machine has room for, by its descriptors and its memory: visitors, idle pool connections, and a reserve for the
 * tunnel port and the control connection.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

export class Capacity extends Context.Tag("nodepass/Capacity")<
  Capacity,
  {
    /** How many descriptors the process may have open; `Infinity` when that is unknown. */
    readonly descriptors: number
    /** The most visitors at a time. `Slots` holds no more, whatever `slot` allows. */
    readonly visitors: number
  }
>() {}

export interface Limits {
  /** Descriptors that the process may open. */
  readonly descriptors: number
  readonly heapBytes: number
}

/** How many visitors fit, with a reserve of a quarter of the descriptors, at most 256, and half of the heap. */
export const fromLimits = ({ descriptors, heapBytes }: Limits): Capacity["Type"] => {
  const byDescriptors = (descriptors - Math.min(maxReserve, descriptors / 4)) / descriptorsPerVisitor
  const visitors = Math.max(1, Math.floor(Math.min(byDescriptors, heapBytes / 2 / bytesPerVisitor)))
  return Capacity.of({ descriptors, visitors })
}

export const layer = (visitors: number): Layer.Layer<Capacity> =>
  Layer.succeed(Capacity, { descriptors: Infinity, visitors })

/** For hosts without a limit. */
export const layerUnlimited: Layer.Layer<Capacity> = layer(Infinity)

/** A TCP visitor and its pool connection, or a pool connection and its target. */
export const descriptorsPerVisitor = 2

/** What a process has open beside visitors and pool: files, ports, epoll, threads, pipes of the relay. */
export const ownDescriptors = 64

/** The maximum number of idle pool connections, so that the pool leaves three quarters of the descriptors to visitors. */
export const poolLimit = ({ descriptors }: Capacity["Type"], max: number): number =>
  Math.min(max, Math.max(1, Math.floor((descriptors - ownDescriptors) / 4)))

/** The maximum number of unauthenticated peers: where descriptors are few, half of what visitors leave to others. */
export const peerLimit = ({ descriptors }: Capacity["Type"]): number =>
  Math.floor(Math.min(512, Math.max(8, reserveOf(descriptors) / 2, descriptors / 32)))

/**
 * Descriptors that visitors leave to others. The system gives out the lowest number that is unused, so those with the
 * highest numbers stay unused until the others are in use.
 */
export const reserveOf = (descriptors: number): number =>
  Math.floor(Math.min(maxReserve, Math.max(Math.min(64, 0.4 * descriptors), descriptors / 8)))

// internal

const maxReserve = 256

/** By 5,000 UDP sessions through a tunnel each side grew by 54 KiB a session, garbage included. A TCP visitor needs less. */
const bytesPerVisitor = 56 * 1024
