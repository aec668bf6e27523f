/**
 * A UDP port by its descriptor, many datagrams a system call. What nobody asks for waits in the kernel.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { constants } from "node:os"
import type * as Address from "../../core/Address.js"
import { type Datagram, type DatagramSocket, type Transport, TransportError } from "../../transport/Transport.js"
import * as Errno from "../socket/Errno.js"
import * as NodeDatagrams from "../socket/NodeDatagrams.js"
import type { Way } from "../socket/NodeHosts.js"
import type { Kernel } from "./Kernel.js"
import { isLater } from "./ffi/Libc.js"
import { batch } from "./ffi/Messages.js"
import * as SocketAddress from "./ffi/SocketAddress.js"
import { options } from "./ffi/Sockets.js"

/** See `Transport`. */
export const bind =
  (kernel: Kernel): Transport["Type"]["bind"] =>
  (address) =>
    NodeDatagrams.bindTo(address, (way) =>
      open(kernel, { way, operation: "bind", address }, (fd) =>
        kernel.sockets.bind(fd, SocketAddress.encode(way, address.port))
      )
    )

/** See `Transport`. */
export const associate =
  (kernel: Kernel): Transport["Type"]["associate"] =>
  (peer) =>
    Effect.flatMap(NodeDatagrams.lookup("connect", peer), (way) =>
      open(kernel, { way, operation: "connect", address: peer, peer }, (fd) =>
        kernel.sockets.connect(fd, SocketAddress.encode(way, peer.port))
      )
    )

// internal

interface Options {
  readonly way: Way
  readonly operation: "bind" | "connect"
  /** What is asked for, in errors. */
  readonly address: Address.Address
  /** The only one to speak to. */
  readonly peer?: Address.Address
}

const { ECONNREFUSED, ENOBUFS } = constants.errno

/** Bytes that may wait in the kernel, each way, as far as the system allows it. */
const room = 4 * 1024 * 1024

const open = (
  kernel: Kernel,
  settings: Options,
  start: (fd: number) => number
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const { libc, sockets } = kernel
      const failed = (errno: number) => Effect.fail(Errno.fromErrno(settings.operation, settings.address, errno))
      const fd = sockets.openDatagram(settings.way.family)
      if (fd < 0) return failed(sockets.errno())
      sockets.set(fd, options.receiveBuffer, room)
      sockets.set(fd, options.sendBuffer, room)
      if (settings.way.family === 6) sockets.set(fd, options.onlyIPv6, 0)
      if (start(fd) >= 0) return Effect.succeed(make(kernel, fd, settings))
      const errno = sockets.errno()
      libc.close(fd)
      return failed(errno)
    }),
    ({ close }) => Effect.sync(close)
  ).pipe(Effect.map(({ socket }) => socket))

const make = ({ libc, messages, poller, sockets }: Kernel, descriptor: number, { address, peer, way }: Options) => {
  let fd = descriptor
  let readable = true
  let error: TransportError | undefined
  let reader: (() => void) | undefined
  const peers = makePeers(way.family)

  const wake = () => reader?.()
  poller.watch(fd, (state) => {
    if (!state.readable) return
    readable = true
    wake()
  })
  const close = () => {
    if (fd < 0) return
    poller.drop(fd)
    libc.close(fd)
    fd = -1
    error = new TransportError({ operation: "receive", address, reason: "Closed" })
    wake()
  }
  const fail = (errno: number) => {
    error = Errno.fromErrno("receive", address, errno)
  }

  const receive = (): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
    if (fd >= 0 && readable && error === undefined) {
      const count = messages.receive(fd)
      // Fewer than there was room for: the kernel has no more, and tells of what comes next.
      readable = count === batch
      if (count > 0) {
        return Effect.succeed(
          Array.from({ length: count }, (_, index) => ({
            peer: peer ?? peers.decode(messages.nameOf(index)),
            bytes: messages.bytesOf(index)
          }))
        )
      }
      const errno = messages.errno()
      if (!isLater(errno)) {
        readable = true
        fail(errno)
      }
    }
    if (error !== undefined) {
      const failed = error
      if (fd >= 0) error = undefined
      return Effect.fail(failed)
    }
    return Effect.async((resume) => {
      if (readable || error !== undefined) return resume(Effect.suspend(receive))
      reader = () => {
        reader = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(receive))
      }
      return Effect.sync(() => {
        reader = undefined
      })
    })
  }

  /** Sends some of a batch; answers how many are dealt with, and how many of those were refused. */
  const sendSome = (datagrams: ReadonlyArray<Datagram>): readonly [done: number, refused: number] => {
    datagrams.forEach(({ bytes, peer: to }, index) =>
      messages.put(index, bytes, peer === undefined ? peers.encode(to) : undefined)
    )
    const sent = messages.send(fd, datagrams.length)
    if (sent >= 0) return [sent, 0]
    const errno = messages.errno()
    // No room now: the newest go.
    if (isLater(errno) || errno === ENOBUFS) return [datagrams.length, datagrams.length]
    fail(errno)
    wake()
    // Told of an earlier datagram: this one is yet to be sent.
    return errno === ECONNREFUSED ? [0, 0] : [1, 1]
  }
  const send = (datagrams: ReadonlyArray<Datagram>): number => {
    let refused = 0
    for (let at = 0; at < datagrams.length;) {
      if (fd < 0) return refused + datagrams.length - at
      const [done, failed] = sendSome(datagrams.slice(at, at + batch))
      at += done
      refused += failed
    }
    return refused
  }

  const name = new Uint8Array(SocketAddress.room)
  sockets.nameOf(fd, name)
  let dropped = 0
  const socket: DatagramSocket = {
    address: SocketAddress.decode(name),
    receive: Effect.suspend(receive),
    send: (datagrams) => Effect.sync(() => send(datagrams)),
    dropped: () => {
      if (fd >= 0) dropped = messages.dropped(fd)
      return dropped
    }
  }
  return { socket, close }
}

/** The addresses of peers, made once: a datagram a peer is common, and so are thousands. */
const makePeers = (family: 4 | 6) => {
  const known = new Map<string, Address.Address>()
  const names = new WeakMap<Address.Address, Uint8Array>()
  return {
    decode: (name: Uint8Array): Address.Address => {
      const own = family === 4 ? name.subarray(0, 16) : name
      const key = latin1.decode(own)
      const found = known.get(key)
      if (found !== undefined) return found
      const peer = SocketAddress.decode(own)
      if (known.size >= 4096) known.clear()
      known.set(key, peer)
      names.set(peer, own)
      return peer
    },
    encode: (peer: Address.Address): Uint8Array => {
      const found = names.get(peer)
      if (found !== undefined) return found
      const isFour = !peer.host.includes(":")
      const host = isFour && family === 6 ? `::ffff:${peer.host}` : peer.host
      const name = SocketAddress.encode({ host, family }, peer.port)
      names.set(peer, name)
      return name
    }
  }
}

const latin1 = new TextDecoder("latin1")
