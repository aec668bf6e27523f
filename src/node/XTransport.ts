/**
 * Real TCP sockets for `Transport`, over `node:net`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as Address from "../Address.js"
import { type Connection, type Listener, type Reason, Transport, TransportError } from "../Transport.js"

export const layer: Layer.Layer<Transport> = Layer.sync(Transport, () => Transport.of({ connect, listen }))

// internal

// libuv reads up to 64 KiB at once: with Node's default mark of 16 KiB every full chunk stops and restarts the reading.
const highWaterMark = 256 * 1024

const socketOptions = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 30_000,
  highWaterMark
}

const reasons: Readonly<Record<string, Reason>> = {
  ECONNREFUSED: "Refused",
  EHOSTUNREACH: "Unreachable",
  EHOSTDOWN: "Unreachable",
  ENETUNREACH: "Unreachable",
  ENETDOWN: "Unreachable",
  ENOTFOUND: "UnknownHost",
  EAI_AGAIN: "UnknownHost",
  ETIMEDOUT: "TimedOut",
  EADDRINUSE: "AddressInUse",
  EADDRNOTAVAIL: "AddressUnavailable",
  EAFNOSUPPORT: "AddressUnavailable",
  EACCES: "Forbidden",
  EPERM: "Forbidden",
  EMFILE: "Exhausted",
  ENFILE: "Exhausted",
  ENOMEM: "Exhausted",
  ENOBUFS: "Exhausted",
  ECONNRESET: "Reset",
  ECONNABORTED: "Reset",
  EPIPE: "Reset",
  ENOTCONN: "Closed",
  ERR_STREAM_DESTROYED: "Closed",
  ERR_SOCKET_CLOSED: "Closed"
}

const failure = (operation: TransportError["operation"], address: Address.Address, cause: unknown): TransportError => {
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  return new TransportError({ operation, address, reason: reasons[code] ?? "Unknown", cause })
}

const ignore = (): void => undefined

/** A socket or server address, an IPv4 address in IPv6 clothes shown as itself. */
const addressOf = (host: string, port: number): Address.Address =>
  Address.make(/^::ffff:[\d.]+$/i.test(host) ? host.slice(7) : host, port)

/**
 * Opens a resource whose finalizer is in the scope before it exists, so that no interruption can leak it; a failed or
 * interrupted attempt closes it at once.
 */
const owned = <R, A, E>(
  close: (resource: R) => void,
  open: (own: (resource: R) => void) => Effect.Effect<A, E>
): Effect.Effect<A, E, Scope.Scope> =>
  Effect.scopeWith((scope) => {
    let resource: R | undefined
    const release = Effect.sync(() => {
      if (resource !== undefined) close(resource)
    })
    return Effect.zipRight(
      Scope.addFinalizer(scope, release),
      Effect.onError(
        open((opened) => {
          resource = opened
        }),
        () => release
      )
    )
  })

const destroy = (socket: Net.Socket): void => {
  socket.destroy()
}

/** Adapts a socket from which nothing was read yet, and that has an error listener. */
const fromSocket = (socket: Net.Socket, remote: Address.Address): Connection => {
  const local = addressOf(socket.localAddress ?? "", socket.localPort ?? 0)
  const front: Array<Uint8Array> = []
  let asked = false
  let reader: (() => void) | undefined
  let writer: (() => void) | undefined

  const broken = (operation: "read" | "write"): TransportError | undefined => {
    if (socket.errored !== null) return failure(operation, remote, socket.errored)
    return socket.destroyed ? new TransportError({ operation, address: remote, reason: "Closed" }) : undefined
  }

  // Bytes that arrived come before the error that came after them, unless we dropped the connection ourselves.
  const dropped = () => socket.destroyed && socket.errored === null && !socket.readableEnded
  const queue: Array<Uint8Array> = []
  let queued = 0
  const take = (): Uint8Array | undefined => {
    const chunk = queue.shift()
    if (chunk === undefined) return undefined
    if (queued >= highWaterMark && queued - chunk.length < highWaterMark) socket.resume()
    queued -= chunk.length
    return chunk
  }
  const look = (): "Bytes" | "End" | "Failure" | undefined => {
    if (dropped()) return "Failure"
    if (front.length > 0 || queued > 0) return "Bytes"
    if (socket.readableEnded) return "End"
    return socket.errored === null ? undefined : "Failure"
  }
  const wakeReader = () => {
    if (reader !== undefined && look() !== undefined) reader()
  }
  const wakeWriter = () => writer?.()
  socket
    .on("drain", wakeWriter)
    .on("finish", wakeWriter)
    .on("close", () => {
      reader?.()
      writer?.()
    })
  const ask = () => {
    if (asked) return
    asked = true
    socket.on("data", (chunk) => {
      queue.push(chunk)
      queued += chunk.length
      if (queued >= highWaterMark) socket.pause()
      wakeReader()
    }).on("end", wakeReader).resume()
  }

  /** Looks again when there may be something to see; between a look and this, there may have been. */
  const park = <A>(again: () => Effect.Effect<A, TransportError>): Effect.Effect<A, TransportError> =>
    Effect.async((resume) => {
      if (look() !== undefined) return resume(again())
      reader = () => {
        reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(again))
      }
      return Effect.sync(() => {
        reader = undefined
      })
    })
  const read = (): Effect.Effect<Option.Option<Uint8Array>, TransportError> => {
    ask()
    if (dropped()) return Effect.fail(closed("read"))
    const chunk: Uint8Array | undefined = front.pop() ?? take()
    if (chunk !== undefined) return Effect.succeedSome(chunk)
    if (socket.readableEnded) return Effect.succeedNone
    const error = broken("read")
    return error === undefined ? park(read) : Effect.fail(error)
  }
  const peek = (): Effect.Effect<"Bytes" | "End", TransportError> => {
    ask()
    const seen = look()
    if (seen === undefined) return park(peek)
    return seen === "Failure" ? Effect.fail(broken("read") ?? closed("read")) : Effect.succeed(seen)
  }

  const closed = (operation: "read" | "write") => new TransportError({ operation, address: remote, reason: "Closed" })
  const written = (done: () => boolean): Effect.Effect<void, TransportError> =>
    Effect.async((resume) => {
      writer = () => {
        const error = done() ? undefined : broken("write")
        if (!done() && error === undefined) return
        writer = undefined
        resume(error === undefined ? Effect.void : Effect.fail(error))
      }
      writer()
      return Effect.sync(() => {
        writer = undefined
      })
    })
  const drained = () => !socket.destroyed && socket.writableLength < highWaterMark
  const finished = () => socket.writableFinished

  return {
    local,
    remote,
    read: Effect.suspend(read),
    peek: Effect.suspend(peek),
    unread: (chunk) => {
      if (chunk.length > 0) front.push(chunk)
    },
    write: (chunk) =>
      Effect.suspend(() => {
        const error = broken("write") ?? (socket.writableEnded ? closed("write") : undefined)
        if (error !== undefined) return Effect.fail(error)
        socket.write(chunk)
        // The kernel mostly takes the chunk at once, which the answer of `socket.write` does not say.
        return drained() ? Effect.void : written(drained)
      }),
    end: Effect.suspend(() => {
      if (finished()) return Effect.void
      if (!socket.writableEnded) socket.end()
      return written(finished)
    }),
    reset: Effect.sync(() => {
      if (!socket.destroyed) socket.resetAndDestroy()
    })
  }
}

const connect = (address: Address.Address): Effect.Effect<Connection, TransportError, Scope.Scope> =>
  owned(destroy, (own) =>
    Effect.async<Connection, TransportError>((resume) => {
      const socket = Net.connect({
        ...socketOptions,
        host: address.host === "" || address.host === "*" ? "localhost" : address.host,
        port: address.port,
        autoSelectFamily: true,
        // Node gives up on a family after 250 ms, less than a round trip on a slow line.
        autoSelectFamilyAttemptTimeout: 1_000
      })
      own(socket)
      socket
        .pause()
        .on("error", ignore)
        .once("error", (cause) => resume(Effect.fail(failure("connect", address, cause))))
        .once("connect", () => {
          const remote = addressOf(socket.remoteAddress ?? address.host, address.port)
          resume(Effect.sync(() => fromSocket(socket, remote)))
        })
    })
  )

const listen = (address: Address.Address): Effect.Effect<Listener, TransportError, Scope.Scope> => {
  // Node accepts as fast as peers connect and cannot be told to wait; what nobody asked for yet waits here.
  const arrived: Array<readonly [socket: Net.Socket, remote: Address.Address]> = []
  const waiting = new Set<() => void>()
  const close = (server: Net.Server) => {
    server.close()
    for (const [socket] of arrived.splice(0)) socket.destroy()
  }
  const arrive = (socket: Net.Socket) => {
    socket.on("error", ignore)
    if (socket.remoteAddress === undefined) return destroy(socket)
    arrived.push([socket, addressOf(socket.remoteAddress, socket.remotePort ?? 0)])
    const [wake] = waiting
    wake?.()
  }
  const arrival = Effect.async<void>((resume) => {
    const wake = () => {
      waiting.delete(wake)
      resume(Effect.void)
    }
    if (arrived.length > 0) return resume(Effect.void)
    waiting.add(wake)
    return Effect.sync(() => waiting.delete(wake))
  })
  const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) => {
    const next: Listener["accept"] = Effect.suspend(() => {
      const [socket, remote] = arrived.shift() ?? []
      if (socket === undefined || remote === undefined) return Effect.zipRight(restore(arrival), next)
      if (socket.destroyed) return next
      return Effect.as(
        Effect.addFinalizer(() => Effect.sync(() => destroy(socket))),
        fromSocket(socket, remote)
      )
    })
    return next
  })
  return owned(close, (own) =>
    Effect.async<Listener, TransportError>((resume) => {
      const server = Net.createServer({ ...socketOptions, pauseOnConnect: true }, arrive)
      own(server)
      server
        .on("error", (cause) => resume(Effect.fail(failure("listen", address, cause))))
        .listen(
          {
            port: address.port,
            // Without a host Node listens on `::` for both families, and on `0.0.0.0` where there is no IPv6.
            ...(address.host === "" || address.host === "*" ? {} : { host: address.host }),
            backlog: 4096
          },
          () => {
            const bound = server.address()
            if (bound === null || typeof bound === "string") return
            resume(Effect.succeed({ address: addressOf(bound.address, bound.port), accept }))
          }
        )
    })
  )
}
