/**
 * What the reactor's worker and its owner both see at any time: bytes carried, and what the worker has opened.
 *
 * The descriptors and the TLS sessions of the exchanges are the owner's all the while. The worker works on them, and
 * has let go of them when it reports that an exchange is over; only then, or once the worker is no more, the owner closes
 * them. So none is closed twice, used after, or lost, whenever the worker dies.
 */
import type { Rest } from "../tls/TlsSession.js"

/** Exchanges that one worker can have at a time. */
export const slots = 32_768

/** Pipes that one worker has at most: each may hold 256 KiB, and the system allows a user 64 MiB in all. */
export const pipes = 64

export interface SharedState {
  readonly memory: SharedArrayBuffer
  /** Bytes so far, by slot: from near to far, then from far to near. A float of 64 bits is written and read in one. */
  readonly bytes: Float64Array
  /** The halves of the wire that its TLS sessions use, 0 where there is none. */
  readonly halves: BigUint64Array
  /**
   * Descriptors that the worker opened, by place, 0 where there is none: two for each pipe, and that of the epoll.
   *
   * The worker takes one out before it closes it: should it die in between, one is lost, but none is closed twice.
   */
  readonly descriptors: Int32Array
}

export const make = (memory = new SharedArrayBuffer(descriptorsAt + places * 4)): SharedState => ({
  memory,
  bytes: new Float64Array(memory, 0, slots * 2),
  halves: new BigUint64Array(memory, halvesAt, 2),
  descriptors: new Int32Array(memory, descriptorsAt, places)
})

/** Where the descriptor of the epoll is, behind those of the pipes. */
export const epollAt = pipes * 2

/** Begins an exchange. The worker may use what is in both halves until it reports that the exchange is over. */
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
  /** What was read from it already: of a TLS session plain text. */
  readonly ahead: Uint8Array
  /** The TLS session on it. */
  readonly tls?: Rest | undefined
  /** Whether it has ended, and the other was told so. Defaults to `false`. */
  readonly done?: boolean | undefined
  /** Bytes that may be read from it before more are granted; below zero it has read more. Defaults to no limit. */
  readonly allowance?: number | undefined
}

/** A way through an exchange, by where it begins. */
export type Way = "near" | "far"

/** Ends an exchange, if it is still under way. */
export interface Abort {
  readonly _tag: "Abort"
  readonly slot: number
}

/** Ends all exchanges, and the worker. */
export interface Stop {
  readonly _tag: "Stop"
}

/** Lets more bytes pass, that way through the exchange. */
export interface Grant {
  readonly _tag: "Grant"
  readonly slot: number
  readonly way: Way
  readonly bytes: number
}

export type Command = Begin | Grant | Abort | Stop

/** How an exchange ended: `Done` when both ways had ended, and that was passed on. All else is to be a reset for both sides. */
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
  readonly _tag: "Over"
  readonly slot: number
  readonly outcome: Outcome
}

/** There is more to read than was granted. */
export interface Want {
  readonly _tag: "Want"
  readonly slot: number
  readonly way: Way
}

export type Report = Over | Want

// internal

const places = epollAt + 1
const halvesAt = slots * 16
const descriptorsAt = halvesAt + 16
