/**
 * Connections, listeners and UDP sockets, each owned by a Scope. A connection is read on demand and can be half-closed.
 * `NodeTransport` and `KernelTransport` open real sockets, `SimNetwork` simulated ones. One compliance suite checks that all
 * of them do what is written here.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Address } from "../core/Address.js"
import type * as NonBlocking from "./NonBlocking.js"
import type { Side, TlsError } from "./Tls.js"
import { withoutStack } from "../core/WithoutStack.js"

/** Why a socket operation failed. */
export const Reason = Schema.Literal(
  "Refused",
  "Unreachable",
  "UnknownHost",
  "UnknownInterface",
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
  UnknownInterface: "no network interface",
  TimedOut: "timed out",
  AddressInUse: "address already in use",
  AddressUnavailable: "not an address of this machine",
  Forbidden: "permission denied",
  Exhausted: "out of file descriptors or memory",
  Reset: "connection reset",
  Closed: "connection closed",
  Unknown: "failed"
}

/** The reason in words; a name that is not a reason, from a later version, is left as it is. */
export const sentenceOf = (reason: string): string => (Schema.is(Reason)(reason) ? sentences[reason] : reason)

/** A socket operation failed. `address` is the remote address of a connection, or the address to listen on. */
export class TransportError extends withoutStack(
  Schema.TaggedError<TransportError>()("TransportError", {
    operation: Schema.Literal("connect", "listen", "bind", "read", "write", "receive"),
    reason: Reason,
    address: Address,
    cause: Schema.optional(Schema.Defect)
  })
) {
  override get message(): string {
    const [, zone = ""] = this.reason === "UnknownInterface" ? this.address.host.split("%") : []
    return `${this.operation} ${this.address}: ${sentences[this.reason]}${zone === "" ? "" : ` ${zone}`}`
  }
}

/**
 * One open byte stream.
 *
 * Closing the scope that opened it closes the socket at once: bytes written before `end` has completed may be lost, and a
 * peer that still sends is reset. One fiber reads at a time, and one writes.
 */
export interface Connection {
  readonly local: Address
  readonly remote: Address
  /**
   * The next chunk, never empty, or `None` once the peer has half-closed, and from then on.
   *
   * Nothing is read from the kernel in advance. Cancel safe: a read that is interrupted while it waits has taken nothing.
   * Fails with `Reset` or `Closed`, and from then on.
   */
  readonly read: Effect.Effect<Option.Option<Uint8Array>, TransportError>
  /**
   * Calls `listener` once, as soon as `read` would complete without waiting, with what `read` would return. Reads nothing,
   * and uses no fiber: it is for connections that lie idle.
   *
   * While the watch lasts, the kernel sends keep-alive probes every few seconds: a connection that died without an
   * end or a reset is a `Failure` within 10 seconds; within 11 where Node opened the socket.
   *
   * The returned effect cancels the watch: run it before you read. One watch at a time.
   */
  readonly watch: (listener: (what: "Bytes" | "End" | "Failure") => void) => Effect.Effect<Effect.Effect<void>>
  /** Puts bytes back: the next `read` returns them first. */
  readonly unread: (chunk: Uint8Array) => void
  /**
   * Completes when the bytes are accepted and fewer than the high-water mark are waiting. The chunk must not change later.
   *
   * Fails with `Closed` after `end`, and with `Reset` when the peer has reset or closed the connection.
   */
  readonly write: (chunk: Uint8Array) => Effect.Effect<void, TransportError>
  /** Bytes written that the kernel has not accepted yet. While the number falls, the peer is reading. */
  readonly unsent: () => number
  /** Half-closes this side. Completes when the kernel has accepted everything written before. A second call does nothing. */
  readonly end: Effect.Effect<void, TransportError>
  /** Resets the connection. Both sides fail with `Reset` or `Closed` from then on. */
  readonly reset: Effect.Effect<void>
  /** What the system knows of the connection, without a read and without a wait; where the Transport can ask it. */
  readonly inspect?: (() => Inspection) | undefined
  /**
   * The connection without fibers, where its Transport can do that. From then on use it in place of this one, whose owner
   * still closes it.
   */
  readonly nonBlocking?: (() => NonBlocking.Connection) | undefined
}

/** A connection that no scope owns: whoever gets it closes it. */
export interface OwnedByCaller extends Connection {
  /** What the end of a scope does. A second call does nothing. */
  close(): void
}

/** What the system knows of a connection. */
export interface Inspection {
  /**
   * `open`: neither side has ended or reset it. `over`: it was reset, or both have ended. Bytes that this process has not read
   * may be in it, except when it is over.
   */
  readonly state: "open" | "ending" | "over"
  /** The smoothed round trip; `undefined` before the first was measured. */
  readonly roundTripMillis: number | undefined
}

/** An open port. Closing the scope that opened it closes the port and the connections that were not accepted yet. */
export interface Listener {
  /** The address in use. Its port is the one that the system chose when port `0` was requested. */
  readonly address: Address
  /** The next connection, in order of arrival, owned by the caller's scope. Cancel safe. */
  readonly accept: Effect.Effect<Connection, never, Scope.Scope>
  /**
   * Offers each connection to `take` first, while a fiber waits in `accept`, until the returned function is called. When
   * `take` returns `true`, it owns the connection, and no fiber is woken up for it. Only where the Transport can do that.
   */
  readonly offer?: ((take: (connection: OwnedByCaller) => boolean) => () => void) | undefined
}

/** What becomes of an attempt to connect: one of both is called, once, unless the attempt was cancelled. */
export interface Dialler {
  opened(connection: OwnedByCaller): void
  failed(error: TransportError): void
}

/** One datagram. `peer` is where it came from, or where to send it. */
export interface Datagram {
  readonly peer: Address
  readonly bytes: Uint8Array
}

/** An open UDP port. The scope that opened it closes it. One fiber receives at a time. */
export interface DatagramSocket {
  /** The address in use. Its port is the one that the system chose when port `0` was requested. */
  readonly address: Address
  /**
   * The datagrams received so far, oldest first, at least one. Cancel safe.
   *
   * Up to `maxBufferedBytes` of datagrams wait here. A datagram that arrives when the buffer is full is dropped and counted.
   * An associated socket fails with `Refused` when its peer reports that the port is closed, and can receive again afterwards.
   */
  readonly receive: Effect.Effect<ReadonlyArray<Datagram>, TransportError>
  /** Sends datagrams, in order. Returns how many the system had no room for. An associated socket sends to its peer only. */
  readonly send: (datagrams: ReadonlyArray<Datagram>) => Effect.Effect<number>
  /** Datagrams that were dropped because the buffer was full. */
  readonly dropped: () => number
}

/** How a call uses the addresses of a host name. */
export interface NameOptions {
  /** How long the result of a lookup is used; zero looks up each time. Defaults to 5 minutes. */
  readonly namesFor?: Duration.Duration | undefined
}

export interface ListenOptions {
  /**
   * `visitors`: does not accept while few file descriptors are left, which the tunnel port and the control connection
   * need; connections wait in the backlog. `tunnel`: accepts while there is any. Defaults to `tunnel`.
   */
  readonly port?: "tunnel" | "visitors" | undefined
  /**
   * Decides at once whether a connection of this peer is accepted. Otherwise it is reset, before anything is made for it.
   *
   * Connections that wait on other ports are accepted first. Defaults to accept all.
   */
  readonly admit?: ((peer: Address) => boolean) | undefined
  /**
   * Decides by the first bytes, of which some are there already, whether a connection that was admitted is accepted. Otherwise
   * it is reset, before anything is made for it. A Transport may accept without asking: the caller has to look itself.
   */
  readonly screen?: ((first: Uint8Array, peer: Address) => boolean) | undefined
}

/** Bytes in a datagram, at most: the limit of UDP over IPv4. */
export const maxDatagramBytes = 65_507

/** Bytes of datagrams that a socket buffers until they are received, at most. */
export const maxBufferedBytes = 1024 * 1024

export class Transport extends Context.Tag("nodepass/Transport")<
  Transport,
  {
    /**
     * Opens a TCP connection. When no address from an earlier lookup works, the name is looked up again.
     *
     * Interrupting it cancels the attempt. Fails with `Refused`, `Unreachable`, `UnknownHost` or `TimedOut`.
     */
    readonly connect: (
      address: Address,
      options?: NameOptions
    ) => Effect.Effect<Connection, TransportError, Scope.Scope>
    /**
     * As `connect`, without a fiber. The returned function cancels the attempt. `undefined`, and nothing was begun, when a name
     * has to be looked up. Only where the Transport can do that.
     */
    readonly connectNow?:
      | ((address: Address, on: Dialler, options?: NameOptions) => (() => void) | undefined)
      | undefined
    /** Opens a port. Fails with `AddressInUse`, `AddressUnavailable`, `Forbidden` or `UnknownHost`. */
    readonly listen: (address: Address, options?: ListenOptions) => Effect.Effect<Listener, TransportError, Scope.Scope>
    /**
     * Starts TLS 1.3 on an open connection of this Transport. No read or write may be in progress on it.
     *
     * Use the returned connection in place of the given one. The scope that opened the socket still owns it. The handshake
     * reads bytes put back by `unread` first. `end` sends a TLS close_notify, and the other direction stays open. There is no
     * timeout. When it fails or is interrupted, the connection is reset; to a server, that reset may be the only sign that
     * the client refused its certificate. Fails with `TlsError`, and with `Reset` or `Closed` when the connection is lost.
     */
    readonly secure: (connection: Connection, as: Side) => Effect.Effect<Connection, TlsError | TransportError>
    /**
     * Whether a connection to the host of `target` would arrive at a listener of this machine on the host of `own`.
     *
     * It is `false` for an unknown name. The ports are not compared.
     */
    readonly reaches: (target: Address, own: Address) => Effect.Effect<boolean>
    /** Opens a UDP port that receives from any peer. Fails like `listen`. */
    readonly bind: (address: Address) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
    /**
     * Opens a UDP port that receives from this peer only. Fails with `UnknownHost`.
     *
     * A peer with several addresses is sent to at the next one when an address is unreachable or refuses.
     */
    readonly associate: (
      peer: Address,
      options?: NameOptions
    ) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
  }
>() {}

/** Waits until a read would complete without waiting, and returns what it would find. Takes nothing. */
export const readable = (connection: Connection): Effect.Effect<"Bytes" | "End" | "Failure"> =>
  Effect.flatMap(Deferred.make<"Bytes" | "End" | "Failure">(), (seen) =>
    Effect.acquireUseRelease(
      connection.watch((what) => Deferred.unsafeDone(seen, Effect.succeed(what))),
      () => Deferred.await(seen),
      (cancel) => cancel
    )
  )

/** The same Transport, with another default for `namesFor`. */
export const withNamesFor = (transport: Transport["Type"], namesFor: Duration.Duration): Transport["Type"] => ({
  ...transport,
  connect: (address, options) => transport.connect(address, { namesFor, ...options }),
  connectNow:
    transport.connectNow && ((address, on, options) => transport.connectNow?.(address, on, { namesFor, ...options })),
  associate: (peer, options) => transport.associate(peer, { namesFor, ...options })
})

/**
 * Accepts connections for ever, and runs the handler of each in a fiber of its own.
 *
 * The handler runs in the connection's scope, and must close it. Fibers and scopes belong to the caller's scope and not to
 * this loop: interrupting the loop stops accepting, and running handlers continue.
 */
export const serveOwning = <R>(
  listener: Listener,
  handler: (connection: Connection, scope: Scope.CloseableScope) => Effect.Effect<void, never, R>
): Effect.Effect<never, never, R | Scope.Scope> =>
  serveScoped(listener, (connection, scope, restore) => restore(handler(connection, scope)))

/** Like `serveOwning`, but closes the connection when its handler ends. */
export const serve = <R>(
  listener: Listener,
  handler: (connection: Connection) => Effect.Effect<void, never, R>
): Effect.Effect<never, never, R | Scope.Scope> =>
  serveScoped(listener, (connection, scope, restore) =>
    Effect.flatMap(Effect.exit(restore(handler(connection))), (exit) => Scope.close(scope, exit))
  )

// internal

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Runs each handler as uninterruptible. The handler restores interruption where it is safe. */
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
            // Once for both: to provide a service to a fiber costs some 10 µs.
          }).pipe(Scope.extend(scope))
        )
      )
    )
  )
