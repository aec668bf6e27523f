/**
 * Sockets as the tunnel needs them: pulled, half-closing, owned by a Scope. `NodeTransport` opens real ones,
 * `SimNetwork` simulated ones, and one compliance suite holds both to the words below.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Address } from "../core/Address.js"
import type { Side, TlsError } from "./Tls.js"

/** Why a socket operation failed. */
export const Reason = Schema.Literal(
  "Refused",
  "Unreachable",
  "UnknownHost",
  "TimedOut",
  "AddressInUse",
  "AddressUnavailable",
  "Forbidden",
  "Exhausted",
  "Reset",
  "Closed",
  "Unknown"
)
export type Reason = typeof Reason.Type

const sentences: Record<Reason, string> = {
  Refused: "connection refused",
  Unreachable: "unreachable",
  UnknownHost: "no such host",
  TimedOut: "timed out",
  AddressInUse: "address already in use",
  AddressUnavailable: "not an address of this machine",
  Forbidden: "permission denied",
  Exhausted: "out of file descriptors or memory",
  Reset: "connection reset",
  Closed: "connection closed",
  Unknown: "failed"
}

/** A socket operation failed. `address` is the far side of a connection, or the address to listen on. */
export class TransportError extends Schema.TaggedError<TransportError>()("TransportError", {
  operation: Schema.Literal("connect", "listen", "bind", "read", "write", "receive"),
  reason: Reason,
  address: Address,
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return `${this.operation} ${this.address}: ${sentences[this.reason]}`
  }
}

/**
 * One open byte stream.
 *
 * Closing the scope that opened it closes the socket at once: bytes that `end` has not seen off may be lost, and a
 * peer that still sends is reset. One fiber reads at a time, and one writes.
 */
export interface Connection {
  readonly local: Address
  readonly remote: Address
  /**
   * The next chunk, never empty, or `None` once the peer has half-closed (and `None` ever after).
   *
   * Nothing is taken from the kernel before it is asked for. Cancel safe while it waits: an interrupted read has
   * taken nothing. Fails with `Reset` or `Closed`, and ever after.
   */
  readonly read: Effect.Effect<Option.Option<Uint8Array>, TransportError>
  /**
   * Calls `listener` once, as soon as `read` would complete without waiting, with what `read` would return. Reads nothing,
   * and uses no fiber: it is for connections that lie idle.
   *
   * The returned effect cancels the watch: run it before you read. One watch at a time.
   */
  readonly watch: (listener: (what: "Bytes" | "End" | "Failure") => void) => Effect.Effect<Effect.Effect<void>>
  /** Puts bytes back in front of what `read` will answer next. */
  readonly unread: (chunk: Uint8Array) => void
  /**
   * Completes when the bytes are accepted and fewer wait than the high-water mark; the chunk must not change after.
   *
   * Fails with `Closed` after `end`, with `Reset` when the peer is gone.
   */
  readonly write: (chunk: Uint8Array) => Effect.Effect<void, TransportError>
  /** Bytes of writes that the kernel has not taken yet: while they grow fewer, the peer reads. */
  readonly unsent: () => number
  /** Half-closes our side; completes when everything written before it is with the kernel. Once is enough. */
  readonly end: Effect.Effect<void, TransportError>
  /** Drops the connection so that the peer sees a reset, not an end. Both sides of it fail with `Reset` or `Closed` after. */
  readonly reset: Effect.Effect<void>
}

/** An open port. Closing the scope that opened it closes the port, and connections nobody accepted yet. */
export interface Listener {
  /** The address in use: the port is the true one when `0` was asked for. */
  readonly address: Address
  /** The next connection, in order of arrival, owned by the caller's scope. Cancel safe. */
  readonly accept: Effect.Effect<Connection, never, Scope.Scope>
}

/** One datagram, and whose it is: where it came from, or where it goes. */
export interface Datagram {
  readonly peer: Address
  readonly bytes: Uint8Array
}

/** An open UDP port, which the scope that opened it closes. One fiber receives at a time. */
export interface DatagramSocket {
  /** The address in use: the port is the true one when `0` was asked for. */
  readonly address: Address
  /**
   * The datagrams that have come, oldest first, at least one. Cancel safe.
   *
   * Up to `datagramsHeld` bytes wait here to be asked for; one that comes then is dropped, and counted by `dropped`.
   * An associated socket fails with `Refused` where its peer says that nobody listens, and receives again after.
   */
  readonly receive: Effect.Effect<ReadonlyArray<Datagram>, TransportError>
  /** Hands each to the system, in order, and says how many it had no room for; an associated socket has one peer only. */
  readonly send: (datagrams: ReadonlyArray<Datagram>) => Effect.Effect<number>
  /** Datagrams that came and were dropped, since nobody asked for them in time. */
  readonly dropped: () => number
}

/** The largest datagram, in bytes: what UDP over IPv4 can carry. */
export const datagramSizeLimit = 65_507

/** Bytes of datagrams that wait in a socket to be received, at most. */
export const datagramsHeld = 1024 * 1024

export class Transport extends Context.Tag("nodepass/Transport")<
  Transport,
  {
    /**
     * Opens a stream to the address, its name looked up now.
     *
     * Interrupting it abandons the attempt. Fails with `Refused`, `Unreachable`, `UnknownHost` or `TimedOut`.
     */
    readonly connect: (address: Address) => Effect.Effect<Connection, TransportError, Scope.Scope>
    /** Opens a port. Fails with `AddressInUse`, `AddressUnavailable`, `Forbidden` or `UnknownHost`. */
    readonly listen: (address: Address) => Effect.Effect<Listener, TransportError, Scope.Scope>
    /**
     * TLS 1.3 over an open connection of this Transport, on which nothing is being read or written.
     *
     * The answer takes the connection's place; the scope that opened it still owns the socket. Bytes put back by `unread`
     * are the handshake's first. To end is to say so in TLS too, and the other direction flows on. It waits for ever;
     * interrupting it, or its failure, resets the connection, and a server may learn from that reset alone that it was refused.
     * Fails with `TlsError`, or with `Reset` or `Closed` when the connection broke.
     */
    readonly secure: (connection: Connection, as: Side) => Effect.Effect<Connection, TlsError | TransportError>
    /**
     * Whether a connection to `target` would come to a port of this machine that listens at `own`, names looked up now;
     * `false` for a name that nobody knows. The ports are not looked at.
     */
    readonly reaches: (target: Address, own: Address) => Effect.Effect<boolean>
    /** Opens a UDP port that hears anybody. Fails as `listen` does. */
    readonly bind: (address: Address) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
    /** Opens a UDP port that hears and speaks to this peer only, its name looked up now. Fails with `UnknownHost`. */
    readonly associate: (peer: Address) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
  }
>() {}

/**
 * Serves every connection in a fiber of its own; never ends by itself.
 *
 * The handler runs in the connection's scope, owns it and sees to it that it is closed. Fibers and scopes end with the
 * caller's scope, not with this loop: interrupting the loop stops accepting and harms nobody.
 */
export const serveOwning = <R>(
  listener: Listener,
  handler: (connection: Connection, scope: Scope.CloseableScope) => Effect.Effect<void, never, R>
): Effect.Effect<never, never, R | Scope.Scope> =>
  serveScoped(listener, (connection, scope, restore) => restore(handler(connection, scope)))

/** Like `serveOwning`, and the connection is closed when its handler ends. */
export const serve = <R>(
  listener: Listener,
  handler: (connection: Connection) => Effect.Effect<void, never, R>
): Effect.Effect<never, never, R | Scope.Scope> =>
  serveScoped(listener, (connection, scope, restore) =>
    Effect.flatMap(Effect.exit(restore(handler(connection))), (exit) => Scope.close(scope, exit))
  )

// internal

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Runs each handler uninterruptible: what may be interrupted it restores. */
const serveScoped = <R>(
  listener: Listener,
  handler: (connection: Connection, scope: Scope.CloseableScope, restore: Restore) => Effect.Effect<void, never, R>
): Effect.Effect<never, never, R | Scope.Scope> =>
  Effect.flatMap(Effect.scope, (parent) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.forever(
        Effect.flatMap(Scope.fork(parent, ExecutionStrategy.sequential), (scope) =>
          Effect.matchCauseEffect(restore(listener.accept), {
            onFailure: (cause) => Effect.zipRight(Scope.close(scope, Exit.failCause(cause)), Effect.failCause(cause)),
            onSuccess: (connection) => Effect.forkIn(handler(connection, scope, restore), parent)
            // Once for both: to change what a fiber is given takes some 10 µs.
          }).pipe(Scope.extend(scope))
        )
      )
    )
  )
