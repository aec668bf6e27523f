/**
 * TLS sessions on descriptors, for tests. The other end is a socket of Node, or another session.
 */
import * as Effect from "effect/Effect"
import { once } from "node:events"
import * as Net from "node:net"
import koffi from "koffi"
import * as Address from "../../src/core/Address.js"
import type { Certificate } from "../../src/transport/Certificates.js"
import * as Libc from "../../src/node/kernel/ffi/Libc.js"
import * as OpenSsl from "../../src/node/kernel/tls/OpenSsl.js"
import * as TlsContexts from "../../src/node/kernel/tls/TlsContexts.js"
import * as TlsHandshake from "../../src/node/kernel/TlsHandshake.js"
import * as TlsSession from "../../src/node/kernel/tls/TlsSession.js"
import * as TlsWire from "../../src/node/kernel/tls/TlsWire.js"
import type * as Tls from "../../src/transport/Tls.js"

const dup: (fd: number) => number = koffi.load(null).func("int dup(int)")
const peer = Address.make("127.0.0.1", 1)

/** A turn of the event loop. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Two ends of a TCP connection. */
export const sockets = async (): Promise<readonly [Net.Socket, Net.Socket]> => {
  const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }).listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  const accepted = new Promise<Net.Socket>((resolve) => server.once("connection", resolve))
  const client = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  client.pause()
  await once(client, "connect")
  const other = await accepted
  server.close()
  return [client.on("error", () => undefined), other.on("error", () => undefined)]
}

export interface TlsThread {
  readonly libc: Libc.Libc
  readonly openSsl: OpenSsl.OpenSsl
  readonly wire: TlsWire.Wire
  readonly contexts: TlsContexts.TlsContexts
  /** A copy of the descriptor of a socket, which Node closes. */
  readonly raw: (socket: Net.Socket) => number
  readonly session: (fd: number, as: Tls.Side, received?: Uint8Array) => TlsSession.TlsSession
  /** Continues a handshake until it is done or has failed. */
  readonly secured: (
    session: TlsSession.TlsSession,
    as: Tls.Side
  ) => Promise<Exclude<ReturnType<typeof TlsHandshake.advance>, "WantRead" | "WantWrite">>
}

/** What the TLS sessions of one thread share. Checks at the end that every session was freed. */
export const tlsThread = Effect.acquireRelease(
  Effect.promise(async (): Promise<TlsThread> => {
    const [libc, openSsl] = await Promise.all([Libc.load(), OpenSsl.load()])
    const wire = TlsWire.make(openSsl, libc)
    const contexts = TlsContexts.make(openSsl)
    return {
      libc,
      openSsl,
      wire,
      contexts,
      raw: (socket) => {
        const handle: unknown = Reflect.get(socket, "_handle")
        const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined
        if (typeof fd !== "number") throw new Error("no descriptor")
        const copy = dup(fd)
        socket.destroy()
        return copy
      },
      session: (fd, as, received) => TlsSession.make(wire, fd, contexts.newSession(as, received)),
      secured: async (session, as) => {
        for (;;) {
          const progress = TlsHandshake.advance(session, { as, openSsl, peer })
          if (progress !== "WantRead" && progress !== "WantWrite") return progress
          await turn()
        }
      }
    }
  }),
  ({ contexts, wire }) =>
    Effect.sync(() => {
      contexts.free()
      if (wire.attached() !== 0) throw new Error(`${wire.attached()} sessions were not freed`)
      wire.free()
    })
)

export const pinned = ({ fingerprint }: Certificate): Tls.Side => ({
  side: "client",
  trust: { _tag: "Pinned", fingerprint }
})

/** Reads up to so many bytes, to the end, or to a failure. `last`: the result of the read that ended it. */
export const readRaw = async (session: TlsSession.TlsSession, limit = Infinity) => {
  const buffer = new Uint8Array(64 * 1024)
  const parts: Array<Buffer> = []
  for (let length = 0; length < limit;) {
    const read = session.read(buffer)
    if (read > 0) {
      parts.push(Buffer.from(buffer.subarray(0, read)))
      length += read
    } else if (read === -11) await turn()
    else return { bytes: Buffer.concat(parts), last: read }
  }
  return { bytes: Buffer.concat(parts), last: undefined }
}

export const writeRaw = async (session: TlsSession.TlsSession, bytes: Uint8Array): Promise<number> => {
  for (let at = 0; at < bytes.length || session.isWaiting();) {
    const written = session.write(bytes.subarray(at))
    if (written < 0) return written
    at += written
    if (at < bytes.length || session.isWaiting()) await turn()
  }
  return bytes.length
}

export const endRaw = async (session: TlsSession.TlsSession): Promise<number> => {
  for (;;) {
    const ended = session.end()
    if (ended !== -11) return ended
    await turn()
  }
}
