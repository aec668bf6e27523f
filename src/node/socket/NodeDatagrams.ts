/**
 * Real UDP ports for `Transport`, over `node:dgram`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import {
  type Datagram,
  type DatagramSocket,
  datagramsHeld,
  type Transport,
  TransportError
} from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import { addressOf } from "./NodeConnection.js"
import * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"

export const bind: Transport["Type"]["bind"] = (address) =>
  bindTo(address, ({ family, host }) =>
    open({ family, operation: "bind", address }, (socket, done) =>
      socket.bind({ port: address.port, address: host }, done)
    )
  )

/** Binds where an address leads: every interface on `::` for both families, and on `0.0.0.0` where there is no IPv6. */
export const bindTo = <A, R>(
  address: Address.Address,
  from: (way: NodeHosts.Way) => Effect.Effect<A, TransportError, R>
): Effect.Effect<A, TransportError, R> =>
  address.host === "" || address.host === "*"
    ? Effect.catchIf(
        from({ family: 6, host: "::" }),
        ({ reason }) => reason === "AddressUnavailable",
        () => from({ family: 4, host: "0.0.0.0" })
      )
    : Effect.flatMap(lookup("bind", address), from)

export const associate: Transport["Type"]["associate"] = (peer) =>
  Effect.flatMap(lookup("connect", peer), ({ family, host }) =>
    open({ family, operation: "connect", address: peer, peer }, (socket, done) => socket.connect(peer.port, host, done))
  )

/** The address to use of those that the name leads to: IPv4 first, since nobody can tell whether a datagram was heard. */
export const lookup = (
  operation: "bind" | "connect",
  address: Address.Address
): Effect.Effect<NodeHosts.Way, TransportError> =>
  NodeHosts.lookup(address.host).pipe(
    Effect.mapError((error) => Errno.fromNode(operation, address, error)),
    Effect.flatMap((ways) => {
      const way = ways.find(({ family }) => family === 4) ?? ways[0]
      return way === undefined
        ? Effect.fail(new TransportError({ operation, address, reason: "UnknownHost" }))
        : Effect.succeed(way)
    })
  )

// internal

interface Options {
  readonly family: 4 | 6
  readonly operation: "bind" | "connect"
  /** What is asked for, in errors. */
  readonly address: Address.Address
  /** The only one to speak to. */
  readonly peer?: Address.Address
}

interface Open {
  readonly socket: Dgram.Socket
  closed: boolean
}

/** Bytes that wait in a socket for the kernel to take them, at most. */
const sendQueueLimit = 1024 * 1024

const open = (
  options: Options,
  start: (socket: Dgram.Socket, done: () => void) => void
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> =>
  owned(
    (open: Open) => {
      if (open.closed) return
      open.closed = true
      open.socket.close()
    },
    (own) =>
      Effect.async<DatagramSocket, TransportError>((resume) => {
        const socket = Dgram.createSocket({
          type: options.family === 6 ? "udp6" : "udp4",
          ipv6Only: false,
          // Every host given to it is an address already.
          lookup: (host, _, found) => found(null, host, options.family)
        })
        const open: Open = { socket, closed: false }
        own(open)
        socket.once("error", (cause) => resume(Effect.fail(Errno.fromNode(options.operation, options.address, cause))))
        start(socket, () => resume(Effect.sync(() => fromSocket(open, options))))
      })
  )

/** Adapts a socket that is bound or connected, from which nothing was received yet. */
const fromSocket = (open: Open, { address, family, peer }: Options): DatagramSocket => {
  const { socket } = open
  let inbox: Array<Datagram> = []
  let held = 0
  let dropped = 0
  let error: TransportError | undefined
  let reader: (() => void) | undefined
  let waking = false
  const peers = makePeers()

  // As much as the system allows: what comes while we are busy waits there.
  try {
    socket.setRecvBufferSize(4 * 1024 * 1024)
    socket.setSendBufferSize(4 * 1024 * 1024)
  } catch {
    // Then it has what it has by itself.
  }

  // Node runs waiting promises after every datagram: woken at once, the reader would be given them one by one.
  const wake = () => {
    if (reader === undefined || waking) return
    waking = true
    setImmediate(() => {
      waking = false
      reader?.()
    })
  }
  socket
    .removeAllListeners("error")
    .on("error", (cause) => {
      error = Errno.fromNode("receive", address, cause)
      wake()
    })
    .on("message", (bytes, { address: host, port }) => {
      if (held + bytes.length > datagramsHeld || inbox.length >= datagramsHeld / 64) {
        dropped++
        return
      }
      held += bytes.length
      inbox.push({ peer: peer ?? peers(host, port), bytes })
      wake()
    })
    .on("close", () => {
      error = new TransportError({ operation: "receive", address, reason: "Closed" })
      reader?.()
    })

  const receive = (): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
    if (inbox.length > 0) {
      const datagrams = inbox
      inbox = []
      held = 0
      return Effect.succeed(datagrams)
    }
    if (error !== undefined) {
      const failed = error
      if (!open.closed) error = undefined
      return Effect.fail(failed)
    }
    return Effect.async((resume) => {
      reader = () => {
        reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(receive))
      }
      if (inbox.length > 0 || error !== undefined) wake()
      return Effect.sync(() => {
        reader = undefined
      })
    })
  }

  const hostOf = ({ host }: Address.Address) => (family === 6 && Net.isIPv4(host) ? `::ffff:${host}` : host)
  const local = socket.address()
  return {
    address: addressOf(local.address, local.port),
    receive: Effect.suspend(receive),
    send: (datagrams) =>
      Effect.sync(() => {
        if (open.closed) return datagrams.length
        let refused = 0
        for (const { bytes, peer: to } of datagrams) {
          // The queue is empty as long as the kernel takes what it is given.
          if (socket.getSendQueueSize() + bytes.length > sendQueueLimit) refused++
          else if (peer === undefined) socket.send(bytes, to.port, hostOf(to))
          else socket.send(bytes)
        }
        return refused
      }),
    dropped: () => dropped
  }
}

/** The address of each peer, made once: a datagram a peer is common, and so are thousands. */
const makePeers = () => {
  const known = new Map<string, Address.Address>()
  return (host: string, port: number): Address.Address => {
    const key = `${host} ${port}`
    const peer = known.get(key) ?? addressOf(host, port)
    if (known.size >= 4096) known.clear()
    known.set(key, peer)
    return peer
  }
}
