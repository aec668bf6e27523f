/**
 * What the reactor's worker and its owner both see at any time: bytes carried, and the descriptors the worker owns.
 */

/** Exchanges that one worker can have at a time. */
export const slots = 32_768

/** Pipes that one worker has at most: each may hold 256 KiB, and the system allows a user 64 MiB in all. */
export const pipes = 64

export interface Ledger {
  readonly memory: SharedArrayBuffer
  /** Bytes so far, by slot: from near to far, then from far to near. A float of 64 bits is written and read in one. */
  readonly bytes: Float64Array
  /**
   * Descriptors by place, 0 where there is none: two for each slot, two for each pipe, and that of the epoll.
   *
   * The worker takes one out before it closes it: should it die in between, one is lost, but none is closed twice.
   */
  readonly descriptors: Int32Array
}

export const make = (memory = new SharedArrayBuffer(slots * 16 + places * 4)): Ledger => ({
  memory,
  bytes: new Float64Array(memory, 0, slots * 2),
  descriptors: new Int32Array(memory, slots * 16, places)
})

/** Where the pipes' descriptors begin, and that of the epoll. */
export const pipesAt = slots * 2
export const epollAt = pipesAt + pipes * 2

/** Begins an exchange. The worker owns both descriptors from then on. */
export interface Begin {
  readonly _tag: "Begin"
  readonly slot: number
  readonly near: Half
  readonly far: Half
  /** Infinity for no limit. */
  readonly idleMillis: number
}

export interface Half {
  readonly descriptor: number
  /** What was read from it already. */
  readonly ahead: Uint8Array
}

/** Resets both sides of an exchange, if it is still under way. */
export interface Abort {
  readonly _tag: "Abort"
  readonly slot: number
}

/** Resets all and ends the worker. */
export interface Stop {
  readonly _tag: "Stop"
}

export type Command = Begin | Abort | Stop

/** How an exchange ended. Both descriptors are closed right after. */
export type Outcome =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Aborted" }
  | {
      readonly _tag: "Broken"
      readonly side: "near" | "far"
      readonly operation: "read" | "write"
      readonly errno: number
    }

/** An exchange is over. */
export interface Over {
  readonly slot: number
  readonly outcome: Outcome
}

// internal

const places = epollAt + 1
