/**
 * Serves UDP visitors: the datagrams of one visitor's address are one session, with one channel to the target, until
 * both sides are silent or another visitor needs its slot.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { DatagramRelay } from "./DatagramRelay.js"
import * as DatagramChannel from "./DatagramChannel.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import type { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import { Slots, type UdpSlot } from "./Slots.js"
import type { FarSilent } from "./Relay.js"
import type { Datagram, DatagramSocket, TransportError } from "../transport/Transport.js"

export interface Options<E extends RefusalError> {
  readonly socket: DatagramSocket
  /** Opens a channel for a visitor: to the other side, or directly to a target. */
  readonly open: (visit: Visit) => Effect.Effect<DatagramChannel.DatagramChannel, E, Scope.Scope>
  /** What a failure of `open` counts as. */
  readonly refusal: Kind
}

/**
 * Serves visitors for ever. A datagram that finds a full queue is dropped, the newest first, and counted; so is a visitor
 * that finds no slot.
 *
 * The caller's scope owns the sessions: interrupting this stops receiving from visitors and ends no session.
 */
export const serve = <E extends RefusalError>(
  options: Options<E>
): Effect.Effect<never, never, DatagramRelay | Refusals | Scope.Scope | Settings | Slots> =>
  Effect.gen(function* () {
    const { socket } = options
    const drops = yield* DatagramChannel.makeDrops
    const refusals = yield* Refusals
    const deliver = yield* makeSessions(options, drops)
    const details = { port: String(socket.address) }
    let dropped = 0
    return yield* socket.receive.pipe(
      // The port belongs to no single visitor: its failure must not end the tunnel, nor repeat without a pause.
      Effect.catchAll((error) =>
        Effect.as(Effect.delay(refusals.count("datagram", error, { details }), "100 millis"), [])
      ),
      Effect.flatMap((datagrams) =>
        Effect.suspend(() => {
          const last = dropped
          dropped = socket.dropped()
          const delivered = Effect.flatMap(drops.withinLimit(datagrams, details), deliver)
          return Effect.zipRight(drops.countFull(dropped - last, maxQueueBytes.session, details), delivered)
        })
      ),
      Effect.forever
    )
  })

// internal

/** The most bytes that wait in the queue of one session, and in those of all sessions of a port. */
const maxQueueBytes = { session: 1024 * 1024, port: 64 * 1024 * 1024 }

/** A datagram counts as at least this many bytes, or empty ones could fill the memory. */
const minDatagramBytes = 64

interface UdpSession {
  readonly visitor: Address
  queue: Array<Uint8Array>
  queuedBytes: number
  /** Resumes the fiber that waits for the queue to fill. */
  resume: (() => void) | undefined
}

/** The sessions of a port. The returned function puts datagrams into their queues and starts missing sessions. */
const makeSessions = <E extends RefusalError>({ open, refusal, socket }: Options<E>, drops: DatagramChannel.Drops) =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const relay = yield* DatagramRelay
    const slots = yield* Slots
    const parent = yield* Effect.scope
    const sessions = new Map<string, UdpSession>()
    const queues = makeQueues()

    const forget = (key: string, session: UdpSession) => {
      if (sessions.get(key) === session) sessions.delete(key)
    }

    const run = (session: UdpSession, slot: UdpSlot, scope: Scope.CloseableScope): Effect.Effect<void> => {
      const { visitor } = session
      const details = { visitor: String(visitor), protocol: "udp" }
      const near = channelOf(session, socket, queues, drops)
      const opened = Effect.tapError(open({ protocol: "udp", visitor, entry: Option.some(socket.address) }), (error) =>
        // The datagrams of a refused visitor are dropped with it; what an open session left goes to the next session.
        Effect.zipRight(
          refusals.count(refusal, error, { details }),
          Effect.sync(() => queues.takeAll(session))
        )
      )
      const served: Effect.Effect<void, E | FarSilent | TransportError, Scope.Scope> = Effect.flatMap(opened, (far) =>
        Effect.catchIf(
          Effect.annotateLogs(relay.exchange(near, far, { visitor: "near", slot, keep }), details),
          ({ _tag }) => _tag === "FarSilent" && keep,
          () => served
        )
      )
      return served.pipe(
        Effect.catchAll(({ message }) =>
          Effect.annotateLogs(Effect.logDebug(`UDP session failed: ${message}`), details)
        ),
        Scope.extend(scope),
        Effect.onExit((exit) => {
          forget(details.visitor, session)
          return Scope.close(scope, exit)
        }),
        Effect.flatMap(() => deliver(queues.takeAll(session).map((bytes) => ({ peer: visitor, bytes })))),
        Effect.onInterrupt(() => Effect.sync(() => queues.takeAll(session)))
      )
    }

    /** A launch that carries nothing is undone, and its visitor launched again. */
    const keep = refusal === "pool"

    /** Starts a session if there is a slot for it. */
    const start = (key: string, visitor: Address) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
          const session: UdpSession = { visitor, queue: [], queuedBytes: 0, resume: undefined }
          let fiber: Fiber.RuntimeFiber<void> | undefined
          let isEvicted = false
          const evict = () => {
            isEvicted = true
            // The visitor's next datagram starts another session, also while this one is ending.
            forget(key, session)
            fiber?.unsafeInterruptAsFork(FiberId.none)
          }
          const slot = yield* Effect.either(Scope.extend(slots.acquireUdp({ visitor, evict }), scope))
          if (slot._tag === "Left" || isEvicted) {
            yield* Scope.close(scope, Exit.void)
            if (slot._tag === "Left") {
              yield* refusals.count("slot", slot.left, { details: { visitor: key, protocol: "udp" } })
            }
            return Option.none()
          }
          sessions.set(key, session)
          fiber = yield* Effect.forkIn(restore(run(session, slot.right, scope)), parent)
          return Option.some(session)
        })
      )

    /** Queues the datagrams of running sessions first, without an effect each. */
    const deliver = (datagrams: ReadonlyArray<Datagram>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const others = datagrams.filter(({ bytes, peer }) => {
          const session = sessions.get(String(peer))
          return session === undefined || !queues.offer(session, bytes)
        })
        return others.length === 0 ? Effect.void : Effect.forEach(others, startOrDrop, { discard: true })
      })

    const startOrDrop = ({ bytes, peer }: Datagram): Effect.Effect<void> => {
      const key = String(peer)
      const running = sessions.get(key)
      const session = running === undefined ? start(key, peer) : Effect.succeedSome(running)
      return Effect.flatMap(session, (session) =>
        Option.isNone(session) || queues.offer(session.value, bytes)
          ? Effect.void
          : drops.countFull(1, maxQueueBytes.session, { visitor: key })
      )
    }

    return deliver
  })

/** The queues of all sessions of a port, within their limits. Not an Effect `Queue`: these are bounded in bytes. */
const makeQueues = () => {
  let queuedBytes = 0
  return {
    /** Whether there was room for the datagram. */
    offer: (session: UdpSession, bytes: Uint8Array): boolean => {
      const weight = Math.max(bytes.length, minDatagramBytes)
      const isFull = session.queuedBytes + weight > maxQueueBytes.session || queuedBytes + weight > maxQueueBytes.port
      if (isFull) return false
      session.queuedBytes += weight
      queuedBytes += weight
      session.queue.push(bytes)
      session.resume?.()
      return true
    },
    /** Puts back what was taken, whether there is room or not: it was counted before. */
    putBack: (session: UdpSession, datagrams: ReadonlyArray<Uint8Array>) => {
      for (const bytes of datagrams) {
        const weight = Math.max(bytes.length, minDatagramBytes)
        session.queuedBytes += weight
        queuedBytes += weight
      }
      session.queue.unshift(...datagrams)
    },
    takeAll: (session: UdpSession): ReadonlyArray<Uint8Array> => {
      const { queue } = session
      queuedBytes -= session.queuedBytes
      session.queuedBytes = 0
      session.queue = []
      return queue
    }
  }
}

/** The visitor's end of a session: receives from its queue and sends by the port. */
const channelOf = (
  session: UdpSession,
  socket: DatagramSocket,
  queues: ReturnType<typeof makeQueues>,
  drops: DatagramChannel.Drops
): DatagramChannel.DatagramChannel => {
  const { visitor } = session
  const details = { visitor: String(visitor) }
  const filled = Effect.async<void>((resume) => {
    session.resume = () => {
      session.resume = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      session.resume = undefined
    })
  })
  const receive: DatagramChannel.DatagramChannel["receive"] = Effect.suspend(() =>
    session.queue.length > 0 ? Effect.succeedSome(queues.takeAll(session)) : Effect.zipRight(filled, receive)
  )
  return {
    receive,
    unsent: () => 0,
    unreceive: (datagrams) => queues.putBack(session, datagrams),
    send: (datagrams) =>
      Effect.flatMap(socket.send(datagrams.map((bytes) => ({ peer: visitor, bytes }))), (refused) =>
        drops.countFull(refused, maxQueueBytes.session, details)
      )
  }
}
