/**
 * The messages between a relay thread, the worker, and its owner, the main thread.
 *
 * The owner owns the descriptors and the TLS sessions of an exchange all the time, and closes them. The worker uses them
 * from `BeginExchange` until it reports `ExchangeEnded`. The owner closes them after that report, or after the worker has
 * exited. So none is closed twice, used after its end, or leaked, whenever the worker dies.
 */
import type { DetachedSession } from "../tls/TlsSession.js"

/** A side of an exchange. A direction through the exchange has the name of the side that its bytes come from. */
export type Side = "near" | "far"

/** A socket between two threads: none uses it, and the next one continues where the last one stopped. */
export interface DetachedSocket {
  readonly descriptor: number
  /** Bytes that were read from the socket and not forwarded yet. With TLS they are plain text. */
  readonly buffered: Uint8Array
  /** The TLS session on the socket. */
  readonly tls?: DetachedSession | undefined
  /** Whether the peer has half-closed and the other side was half-closed for it. Defaults to `false`. */
  readonly done?: boolean | undefined
  /** Bytes that may be read before the next grant; below zero, the bytes that were read beyond it. Defaults to no limit. */
  readonly allowance?: number | undefined
}

export interface BeginExchange {
  readonly _tag: "BeginExchange"
  readonly slot: number
  readonly near: DetachedSocket
  readonly far: DetachedSocket
  /** Infinity for no limit. */
  readonly idleMillis: number
}

/** Ends an exchange. Does nothing when the exchange has ended already. */
export interface AbortExchange {
  readonly _tag: "AbortExchange"
  readonly slot: number
}

/** Lets more bytes pass that come from this side. */
export interface GrantBytes {
  readonly _tag: "GrantBytes"
  readonly slot: number
  readonly side: Side
  readonly bytes: number
}

/** Ends all exchanges, and the worker. */
export interface StopWorker {
  readonly _tag: "StopWorker"
}

/** Ends the worker by an exception, as a fault in it would. For tests. */
export interface FailWorker {
  readonly _tag: "FailWorker"
}

/** From the owner to the worker. */
export type Command = BeginExchange | GrantBytes | AbortExchange | StopWorker | FailWorker

/** How an exchange ended. `Done`: both sides half-closed, and each end was forwarded. After all others both sides are reset. */
export type ExchangeResult =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Aborted" }
  | {
      readonly _tag: "Broken"
      readonly side: Side
      readonly operation: "read" | "write"
      readonly errno: number
    }

/** The worker uses nothing of the exchange any more. */
export interface ExchangeEnded {
  readonly _tag: "ExchangeEnded"
  readonly slot: number
  readonly result: ExchangeResult
}

/** The bytes granted for this side are used up. */
export interface GrantRequested {
  readonly _tag: "GrantRequested"
  readonly slot: number
  readonly side: Side
}

/** From the worker to the owner. */
export type Report = ExchangeEnded | GrantRequested
