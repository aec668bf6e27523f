/**
 * Several bound UDP sockets as one: a port on every address of a host name.
 */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Address from "../../core/Address.js"
import type { Datagram, DatagramSocket, TransportError } from "../../transport/Transport.js"

/** Answers leave by the socket that received from the peer, or else by one of the peer's address family. */
export const make = (sockets: Arr.NonEmptyArray<DatagramSocket>): Effect.Effect<DatagramSocket> =>
  Effect.gen(function* () {
    const [first] = sockets
    if (sockets.length === 1) return first
    /** What each socket has received, until it is taken. */
    const offers: Array<() => Exit.Exit<ReadonlyArray<Datagram>, TransportError>> = []
    const socketOf = new WeakMap<Address.Address, DatagramSocket>()
    let closed: TransportError | undefined
    let onOffer: (() => void) | undefined

    const offer = (socket: DatagramSocket, exit: Exit.Exit<ReadonlyArray<Datagram>, TransportError>) =>
      Effect.async<void>((resume) => {
        if (Exit.isSuccess(exit)) for (const { peer } of exit.value) socketOf.set(peer, socket)
        offers.push(() => {
          resume(Effect.void)
          return exit
        })
        onOffer?.()
      })
    const forward = (socket: DatagramSocket): Effect.Effect<void> =>
      Effect.flatMap(Effect.exit(socket.receive), (exit) => {
        const error = Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined
        if (error?.reason !== "Closed") return Effect.zipRight(offer(socket, exit), forward(socket))
        return Effect.sync(() => {
          closed = error
          onOffer?.()
        })
      })
    // They end when their sockets are closed.
    yield* Effect.forEach(sockets, (socket) => Effect.forkDaemon(forward(socket)), { discard: true })

    const receive = (): Effect.Effect<ReadonlyArray<Datagram>, TransportError> => {
      const next = offers.shift()
      if (next !== undefined) return next()
      return closed === undefined ? waiting : Effect.fail(closed)
    }
    const waiting: ReturnType<typeof receive> = Effect.async((resume) => {
      onOffer = () => {
        onOffer = undefined
        // Nothing is taken here: the fiber may be interrupted before it runs.
        resume(Effect.suspend(receive))
      }
      if (offers.length > 0 || closed !== undefined) onOffer()
      return Effect.sync(() => {
        onOffer = undefined
      })
    })
    const isIpv6 = ({ host }: Address.Address) => host.includes(":")
    const senderTo = (peer: Address.Address) =>
      socketOf.get(peer) ?? sockets.find(({ address }) => isIpv6(address) === isIpv6(peer)) ?? first
    return {
      address: first.address,
      receive: Effect.suspend(receive),
      send: (datagrams) => {
        const bySocket = new Map<DatagramSocket, Array<Datagram>>()
        for (const datagram of datagrams) {
          const socket = senderTo(datagram.peer)
          const own = bySocket.get(socket)
          if (own === undefined) bySocket.set(socket, [datagram])
          else own.push(datagram)
        }
        return Effect.map(
          Effect.forEach(bySocket, ([socket, own]) => socket.send(own)),
          (refused) => refused.reduce((sum, count) => sum + count, 0)
        )
      },
      dropped: () => sockets.reduce((sum, socket) => sum + socket.dropped(), 0)
    }
  })
