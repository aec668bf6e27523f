/**
 * UDP ports over `node:dgram`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import type * as Address from "../../core/Address.js"
import {
  type Datagram,
  type DatagramSocket,
  maxBufferedBytes,
  type Transport,
  TransportError
} from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import * as EveryAddress from "./EveryAddress.js"
import * as FallbackDatagrams from "./FallbackDatagrams.js"
import * as MergedDatagrams from "./MergedDatagrams.js"
import * as NodeHosts from "./NodeHosts.js"
import { owned } from "./NodeScope.js"
import type { Resolver } from "./Resolver.js"

/** See `Transport`. */
export const bind = (resolver: Resolver): Transport["Type"]["bind"] =>
  bindBy(resolver, (address, { family, host }, port) =>
    open({ family, operation: "bind", address }, (socket, done) => socket.bind({ port, address: host }, done))
  )

/** Binds to every address of a host. All interfaces are `::` for both families, and `0.0.0.0` without IPv6. */
export const bindBy =
  (
    resolver: Resolver,
    bind: (
      address: Address.Address,
      ipAddress: NodeHosts.IpAddress,
      port: number
    ) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
  ): Transport["Type"]["bind"] =>
  (address) =>
    address.host === "" || address.host === "*"
      ? Effect.catchIf(
          bind(address, { family: 6, host: "::" }, address.port),
          ({ reason }) => reason === "AddressUnavailable",
          () => bind(address, { family: 4, host: "0.0.0.0" }, address.port)
        )
      : Effect.flatMap(
          EveryAddress.open(address, {
            resolver,
            operation: "bind",
            open: (ipAddress, port) => bind(address, ipAddress, port),
            portOf: (socket) => socket.address.port
          }),
          MergedDatagrams.make
        )

/** See `Transport`. */
export const associate = (resolver: Resolver): Transport["Type"]["associate"] =>
  associateBy(resolver, (peer, { family, host }) =>
    open({ family, operation: "connect", address: peer, peer }, (socket, done) => socket.connect(peer.port, host, done))
  )

/** Associates with a peer, at its IPv4 addresses first: UDP does not show at once which of the addresses answers. */
export const associateBy =
  (
    resolver: Resolver,
    associate: (
      peer: Address.Address,
      ipAddress: NodeHosts.IpAddress
    ) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
  ): Transport["Type"]["associate"] =>
  (peer, options) =>
    resolver.resolve(peer.host, options?.namesFor).pipe(
      Effect.mapError((error) => Errno.fromNode("connect", peer, error)),
      Effect.flatMap(({ addresses }) => {
        const ipv4First = addresses.toSorted((one, other) => one.family - other.family)
        return FallbackDatagrams.make(peer, ipv4First, (ipAddress) => associate(peer, ipAddress))
      })
    )

// internal

interface Options {
  readonly family: 4 | 6
  readonly operation: "bind" | "connect"
  /** For errors. */
  readonly address: Address.Address
  /** The only peer of an associated socket. */
  readonly peer?: Address.Address | undefined
}

interface Open {
  readonly socket: Dgram.Socket
  isClosed: boolean
}

/** Opens a socket that the scope owns. `start` binds or connects it. */
const open = (
  options: Options,
  start: (socket: Dgram.Socket, done: () => void) => void
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> =>
  owned(
    (open: Open) => {
      if (open.isClosed) return
      open.isClosed = true
      open.socket.close()
    },
    (own) =>
      Effect.async<DatagramSocket, TransportError>((resume) => {
        const socket = Dgram.createSocket({
          type: options.family === 6 ? "udp6" : "udp4",
          ipv6Only: false,
          // Every host is an address already.
          lookup: (host, _, found) => found(null, host, options.family)
        })
        const open: Open = { socket, isClosed: false }
        own(open)
        socket.once("error", (cause) => resume(Effect.fail(Errno.fromNode(options.operation, options.address, cause))))
        start(socket, () => resume(Effect.sync(() => fromSocket(open, options))))
      })
  )

/** Adapts a socket that is bound or connected, from which nothing was received yet. */
const fromSocket = (open: Open, { address, family, peer }: Options): DatagramSocket => {
  const { socket } = open
  const inbox = makeInbox(open, { address, peer })
  try {
    // As much as the system allows: datagrams wait there while this process is busy.
    socket.setRecvBufferSize(bufferBytes)
    socket.setSendBufferSize(bufferBytes)
  } catch {
    // The socket keeps the sizes of the system.
  }
  const hostOf = ({ host }: Address.Address) => (family === 6 && Net.isIPv4(host) ? `::ffff:${host}` : host)
  const local = socket.address()
  return {
    address: NodeHosts.addressOf(local.address, local.port),
    receive: inbox.receive,
    send: (datagrams) =>
      Effect.sync(() => {
        if (open.isClosed) return datagrams.length
        let refused = 0
        for (const { bytes, peer: to } of datagrams) {
          // Node queues a datagram only when the kernel does not take it.
          if (socket.getSendQueueSize() + bytes.length > maxQueuedBytes) refused++
          else if (peer === undefined) socket.send(bytes, to.port, hostOf(to))
          else socket.send(bytes)
        }
        return refused
      }),
    dropped: inbox.dropped
  }
}

/** The datagrams that have come and were not received yet. */
const makeInbox = (
  open: Open,
  { address, peer }: Pick<Options, "address" | "peer">
): Pick<DatagramSocket, "dropped" | "receive"> => {
  let waiting: Array<Datagram> = []
  let waitingBytes = 0
  let dropped = 0
  let error: TransportError | undefined
  let onReadable: (() => void) | undefined
  let isNotifying = false
  const addressFor = makePeers()

  // Not at once: Node runs promises after every datagram, and the receiver would get them one by one.
  const notify = () => {
    if (onReadable === undefined || isNotifying) return
    isNotifying = true
    setImmediate(() => {
      isNotifying = false
      onReadable?.()
    })
  }
  open.socket
    .removeAllListeners("error")
    .on("error", (cause) => {
      error = Errno.fromNode("receive", address, cause)
      notify()
    })
    .on("message", (bytes, { address: host, port }) => {
      if (waitingBytes + bytes.length > maxBufferedBytes || waiting.length >= maxBufferedBytes / 64) {
        dropped++
        return
      }
      waitingBytes += bytes.length
      waiting.push({ peer: peer ?? addressFor(host, port), bytes })
      notify()
    })
    .on("close", () => {
      error = new TransportError({ operation: "receive", address, reason: "Closed" })
      onReadable?.()
    })

  const receive = (): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
    if (waiting.length > 0) {
      const datagrams = waiting
      waiting = []
      waitingBytes = 0
      return Effect.succeed(datagrams)
    }
    if (error === undefined) return readable
    const failure = error
    // The socket goes on after an error. Closed is for ever.
    if (!open.isClosed) error = undefined
    return Effect.fail(failure)
  }
  const readable: ReturnType<typeof receive> = Effect.async((resume) => {
    onReadable = () => {
      onReadable = undefined
      // Nothing is received here: the fiber may be interrupted before it runs.
      resume(Effect.suspend(receive))
    }
    if (waiting.length > 0 || error !== undefined) notify()
    return Effect.sync(() => {
      onReadable = undefined
    })
  })
  return { receive: Effect.suspend(receive), dropped: () => dropped }
}

/** Caches the addresses of peers: thousands of datagrams may have the same peer. */
const makePeers = () => {
  const cache = new Map<string, Address.Address>()
  return (host: string, port: number): Address.Address => {
    const key = `${host} ${port}`
    const peer = cache.get(key) ?? NodeHosts.addressOf(host, port)
    if (cache.size >= maxPeers) cache.clear()
    cache.set(key, peer)
    return peer
  }
}

/** Bytes that may wait in the kernel, each way. */
const bufferBytes = 4 * 1024 * 1024
/** Bytes that may wait in Node to be sent. */
const maxQueuedBytes = 1024 * 1024
const maxPeers = 4096
