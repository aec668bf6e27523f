/**
 * UDP ports by their descriptors, many datagrams in one system call. Datagrams that no caller has asked for wait in the
 * kernel.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { constants } from "node:os"
import type * as Address from "../../core/Address.js"
import { type Datagram, type DatagramSocket, type Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as NodeDatagrams from "../socket/NodeDatagrams.js"
import type { IpAddress } from "../socket/NodeHosts.js"
import type { Resolver } from "../socket/Resolver.js"
import type { Kernel } from "./Kernel.js"
import { isRetryable } from "./ffi/Libc.js"
import { maxDatagrams } from "./ffi/DatagramBatch.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import { options } from "./ffi/Sockets.js"

/** See `Transport`. */
export const bind = (kernel: Kernel, resolver: Resolver): Transport["Type"]["bind"] =>
  NodeDatagrams.bindBy(resolver, (address, ipAddress, port) =>
    open(kernel, { ipAddress, operation: "bind", address }, (fd) =>
      kernel.sockets.bind(fd, SocketAddress.encode(ipAddress, port))
    )
  )

/** See `Transport`. */
export const associate = (kernel: Kernel, resolver: Resolver): Transport["Type"]["associate"] =>
  NodeDatagrams.associateBy(resolver, (peer, ipAddress) =>
    open(kernel, { ipAddress, operation: "connect", address: peer, peer }, (fd) =>
      kernel.sockets.connect(fd, SocketAddress.encode(ipAddress, peer.port))
    )
  )

// internal

interface Options {
  readonly ipAddress: IpAddress
  readonly operation: "bind" | "connect"
  /** For errors. */
  readonly address: Address.Address
  /** The only peer of an associated socket. */
  readonly peer?: Address.Address | undefined
}

/** Opens a socket that the scope owns. `start` binds or connects it. */
const open = (
  kernel: Kernel,
  settings: Options,
  start: (fd: number) => number
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const { libc, sockets } = kernel
      const failed = (errno: number) => Effect.fail(Errno.fromErrno(settings.operation, settings.address, errno))
      const fd = sockets.openDatagram(settings.ipAddress.family)
      if (fd < 0) return failed(sockets.errno())
      sockets.set(fd, options.receiveBuffer, bufferBytes)
      sockets.set(fd, options.sendBuffer, bufferBytes)
      if (settings.ipAddress.family === 6) sockets.set(fd, options.onlyIPv6, 0)
      if (start(fd) >= 0) return Effect.succeed(make(kernel, fd, settings))
      const errno = sockets.errno()
      libc.close(fd)
      return failed(errno)
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ socket }) => socket))

const make = (kernel: Kernel, descriptor: number, { address, ipAddress, peer }: Options) => {
  const { datagramBatch, libc, poller, sockets } = kernel
  let fd = descriptor
  let isReadable = true
  let error: TransportError | undefined
  let onReadable: (() => void) | undefined
  const peers = makePeers(ipAddress.family)

  poller.watch(fd, {
    handle: ({ readable }) => {
      if (!readable) return
      isReadable = true
      onReadable?.()
    }
  })
  const close = () => {
    if (fd < 0) return
    poller.forget(fd)
    libc.close(fd)
    fd = -1
    error = new TransportError({ operation: "receive", address, reason: "Closed" })
    onReadable?.()
  }
  const fail = (errno: number) => {
    error = Errno.fromErrno("receive", address, errno)
  }

  // Receiving

  const receive = (): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
    if (fd >= 0 && isReadable && error === undefined) {
      const count = datagramBatch.receive(fd)
      // Fewer than fit: the kernel has no more, and the poller reports what comes next.
      isReadable = count === maxDatagrams
      if (count > 0) return Effect.succeed(received(count))
      const errno = datagramBatch.errno()
      if (!isRetryable(errno)) {
        isReadable = true
        fail(errno)
      }
    }
    if (error === undefined) return readable
    const failure = error
    // The socket goes on after an error. Closed is for ever.
    if (fd >= 0) error = undefined
    return Effect.fail(failure)
  }
  const received = (count: number): ReadonlyArray<Datagram> =>
    Array.from({ length: count }, (_, index) => ({
      peer: peer ?? peers.decode(datagramBatch.nameOf(index)),
      bytes: datagramBatch.bytesOf(index)
    }))
  const readable: ReturnType<typeof receive> = Effect.async((resume) => {
    if (isReadable || error !== undefined) return resume(Effect.suspend(receive))
    onReadable = () => {
      onReadable = undefined
      // Nothing is received here: the fiber may be interrupted before it runs.
      resume(Effect.suspend(receive))
    }
    return Effect.sync(() => {
      onReadable = undefined
    })
  })

  // Sending

  /** Sends a batch as far as one call can. Returns how many datagrams are done, and how many of those were refused. */
  const sendBatch = (datagrams: ReadonlyArray<Datagram>): readonly [done: number, refused: number] => {
    datagrams.forEach(({ bytes, peer: to }, index) =>
      datagramBatch.put(index, bytes, peer === undefined ? peers.encode(to) : undefined)
    )
    const sent = datagramBatch.send(fd, datagrams.length)
    if (sent >= 0) return [sent, 0]
    const errno = datagramBatch.errno()
    // The send buffer is full: the newest datagrams are refused.
    if (isRetryable(errno) || errno === ENOBUFS) return [datagrams.length, datagrams.length]
    fail(errno)
    onReadable?.()
    // ECONNREFUSED is about an earlier datagram. This one was not sent and is tried again.
    return errno === ECONNREFUSED ? [0, 0] : [1, 1]
  }
  const send = (datagrams: ReadonlyArray<Datagram>): number => {
    let refused = 0
    for (let index = 0; index < datagrams.length;) {
      if (fd < 0) return refused + datagrams.length - index
      const [done, failed] = sendBatch(datagrams.slice(index, index + maxDatagrams))
      index += done
      refused += failed
    }
    return refused
  }

  const name = new Uint8Array(SocketAddress.maxBytes)
  sockets.nameOf(fd, name)
  let dropped = 0
  const socket: DatagramSocket = {
    address: SocketAddress.decode(name),
    receive: Effect.suspend(receive),
    send: (datagrams) => Effect.sync(() => send(datagrams)),
    dropped: () => {
      if (fd >= 0) dropped = datagramBatch.dropped(fd)
      return dropped
    }
  }
  return { socket, close }
}

/** Converts the addresses of peers and caches them: thousands of datagrams may have the same peer. */
const makePeers = (family: 4 | 6) => {
  const decoded = new Map<string, Address.Address>()
  const encoded = new WeakMap<Address.Address, Uint8Array>()
  return {
    decode: (name: Uint8Array): Address.Address => {
      const own = family === 4 ? name.subarray(0, 16) : name
      const key = latin1.decode(own)
      const found = decoded.get(key)
      if (found !== undefined) return found
      const peer = SocketAddress.decode(own)
      if (decoded.size >= maxPeers) decoded.clear()
      decoded.set(key, peer)
      encoded.set(peer, own)
      return peer
    },
    encode: (peer: Address.Address): Uint8Array => {
      const found = encoded.get(peer)
      if (found !== undefined) return found
      const isIpv4 = !peer.host.includes(":")
      const host = isIpv4 && family === 6 ? `::ffff:${peer.host}` : peer.host
      const name = SocketAddress.encode({ host, family }, peer.port)
      encoded.set(peer, name)
      return name
    }
  }
}

const { ECONNREFUSED, ENOBUFS } = constants.errno

/** Bytes that may wait in the kernel each way, as far as the system allows. */
const bufferBytes = 4 * 1024 * 1024

const maxPeers = 4096

const latin1 = new TextDecoder("latin1")
