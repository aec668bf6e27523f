/**
 * TLS 1.3 by OpenSSL over the connections of `KernelTransport`.
 */
import * as Effect from "effect/Effect"
import type * as Tls from "../../transport/Tls.js"
import { type Connection, type Transport, TransportError } from "../../transport/Transport.js"
import * as SystemAuthorities from "../socket/SystemAuthorities.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import type { KernelSocket } from "./KernelSocket.js"
import type { DetachedSocket } from "./reactor/ReactorMessages.js"
import type { OpenSsl } from "./tls/OpenSsl.js"
import * as TlsContexts from "./tls/TlsContexts.js"
import * as TlsHandshake from "./TlsHandshake.js"
import * as TlsSession from "./tls/TlsSession.js"
import * as TlsWire from "./tls/TlsWire.js"

/** See `Transport`. */
export const secure =
  (kernel: Kernel, openSsl: OpenSsl): Transport["Type"]["secure"] =>
  (connection, as) =>
    Effect.flatMap(SystemAuthorities.load(as), () => {
      const socket = KernelConnection.socketOf(connection)
      if (socket === undefined) return Effect.dieMessage("not a connection of this Transport")
      return socket.canDetach() ? handshake(socket, { kernel, openSsl, as }) : Effect.fail(closed(connection))
    }).pipe(Effect.onError(() => connection.reset))

/** Attaches the TLS session of a detached socket to this thread. */
export const attach = (kernel: Kernel, { descriptor, tls }: DetachedSocket): TlsSession.TlsSession | undefined =>
  tls === undefined || kernel.openSsl === undefined
    ? undefined
    : TlsSession.make(stateOf(kernel, kernel.openSsl).wire, descriptor, tls)

// internal

interface State {
  readonly contexts: TlsContexts.TlsContexts
  readonly wire: TlsWire.Wire
}

/** One for the process, made when it is needed: it takes memory, and many tunnels have no TLS. */
const states = new WeakMap<OpenSsl, State>()
const stateOf = ({ libc }: Kernel, openSsl: OpenSsl): State => {
  const state = states.get(openSsl) ?? { contexts: TlsContexts.make(openSsl), wire: TlsWire.make(openSsl, libc) }
  states.set(openSsl, state)
  return state
}

interface Options {
  readonly kernel: Kernel
  readonly openSsl: OpenSsl
  readonly as: Tls.Side
}

/** Takes the descriptor from the socket, and gives it to the new connection when the handshake is done. */
const handshake = (
  socket: KernelSocket,
  { as, kernel, openSsl }: Options
): Effect.Effect<Connection, Tls.TlsError | TransportError> =>
  Effect.async((resume) => {
    const { libc, poller, sockets } = kernel
    const { remote } = socket
    const { contexts, wire } = stateOf(kernel, openSsl)
    const successor = { close: () => stop("End"), reset: () => stop("Reset") }
    const { buffered, descriptor } = socket.detach({ close: () => successor.close(), reset: () => successor.reset() })
    let session: TlsSession.TlsSession | undefined
    let isOpen = true
    const stop = (how: "End" | "Reset") => {
      if (!isOpen) return
      isOpen = false
      poller.forget(descriptor)
      session?.free()
      if (how === "Reset") sockets.resetOnClose(descriptor)
      else sockets.endOnClose(descriptor)
      libc.close(descriptor)
      resume(Effect.fail(closed(socket)))
    }
    const advance = (session: TlsSession.TlsSession) => {
      if (!isOpen) return
      const progress = TlsHandshake.advance(session, { as, openSsl, peer: remote })
      if (progress === "WantRead" || progress === "WantWrite") return
      // The caller resets the connection.
      if (progress !== "Done") return resume(Effect.fail(progress))
      isOpen = false
      const connection = KernelConnection.make(kernel, descriptor, remote, { tls: session, isWatched: true })
      Object.assign(successor, { close: () => connection.close(), reset: () => connection.resetNow() })
      resume(Effect.succeed(connection))
    }
    const begun = (session = TlsSession.make(wire, descriptor, contexts.newSession(as, buffered)))
    poller.setHandler(descriptor, { handle: () => advance(begun) })
    advance(begun)
  })

const closed = ({ remote }: Pick<Connection, "remote">) =>
  new TransportError({ operation: "read", address: remote, reason: "Closed" })
