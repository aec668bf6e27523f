/**
 * TLS 1.3 over the connections of `KernelTransport`, with OpenSSL.
 */
import * as Effect from "effect/Effect"
import type * as Tls from "../../transport/Tls.js"
import { type Connection, type Transport, TransportError } from "../../transport/Transport.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import type { Half } from "./reactor/SharedState.js"
import type { OpenSsl } from "./tls/OpenSsl.js"
import * as TlsContexts from "./tls/TlsContexts.js"
import * as TlsHandshake from "./TlsHandshake.js"
import * as TlsSession from "./tls/TlsSession.js"
import * as TlsWire from "./tls/TlsWire.js"

/** See `Transport`. */
export const secure =
  (kernel: Kernel, openSsl: OpenSsl): Transport["Type"]["secure"] =>
  (connection, as) =>
    Effect.suspend(() => {
      const found = KernelConnection.below(connection)
      if (found === undefined) return Effect.dieMessage("not a connection of this Transport")
      if (!found.isWhole()) return Effect.fail(closed(connection))
      const { contexts, wire } = meansOf(kernel, openSsl)
      return handshake(kernel, { connection, found, openSsl, as }, (fd, ahead) =>
        TlsSession.make(wire, fd, contexts.begin(as, ahead))
      )
    }).pipe(Effect.onError(() => connection.reset))

/** Takes up the session of a half in this thread. */
export const resume = (kernel: Kernel, { descriptor, tls }: Half): TlsSession.TlsSession | undefined =>
  tls === undefined || kernel.openSsl === undefined
    ? undefined
    : TlsSession.make(meansOf(kernel, kernel.openSsl).wire, descriptor, tls)

// internal

interface Means {
  readonly contexts: TlsContexts.TlsContexts
  readonly wire: TlsWire.Wire
}

/** One for this process, which takes some memory: many tunnels have no TLS. */
const means = new WeakMap<OpenSsl, Means>()
const meansOf = ({ libc }: Kernel, openSsl: OpenSsl): Means => {
  const made = means.get(openSsl) ?? { contexts: TlsContexts.make(openSsl), wire: TlsWire.make(openSsl, libc) }
  means.set(openSsl, made)
  return made
}

interface Options {
  readonly connection: Connection
  readonly found: KernelConnection.Below
  readonly openSsl: OpenSsl
  readonly as: Tls.Side
}

const handshake = (
  kernel: Kernel,
  { as, connection, found, openSsl }: Options,
  begin: (fd: number, ahead: Uint8Array) => TlsSession.TlsSession
): Effect.Effect<Connection, Tls.TlsError | TransportError> =>
  Effect.async((resume) => {
    const { libc, poller } = kernel
    const { remote } = connection
    const heir = { close: () => shut(false), reset: () => shut(true) }
    const { ahead, descriptor } = found.release({ close: () => heir.close(), reset: () => heir.reset() })
    let session: TlsSession.TlsSession | undefined
    let open = true
    const shut = (asReset: boolean) => {
      if (!open) return
      open = false
      poller.drop(descriptor)
      session?.free()
      libc[asReset ? "linger" : "settle"](descriptor)
      libc.close(descriptor)
      resume(Effect.fail(closed(connection)))
    }
    const advance = (session: TlsSession.TlsSession) => {
      if (!open) return
      const progress = TlsHandshake.advance(session, { as, openSsl, peer: remote })
      if (progress === "WantRead" || progress === "WantWrite") return
      if (progress !== "Done") return resume(Effect.fail(progress))
      open = false
      const made = KernelConnection.make(kernel, descriptor, remote, { tls: session, isWatched: true })
      Object.assign(heir, { close: made.close, reset: made.reset })
      resume(Effect.succeed(made.connection))
    }
    const began = (session = begin(descriptor, ahead))
    poller.pass(descriptor, () => advance(began))
    advance(began)
  })

const closed = ({ remote }: Connection) => new TransportError({ operation: "read", address: remote, reason: "Closed" })
