/**
 * Where datagrams come in: those of one visitor are one session, with one way to the target, until it falls silent.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { DatagramRelay } from "./DatagramRelay.js"
import * as DatagramChannel from "./DatagramChannel.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import type { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import { Slots } from "./Slots.js"
import type { Datagram, DatagramSocket } from "../transport/Transport.js"

export interface Options<E extends RefusalError> {
  readonly socket: DatagramSocket
  /** Opens the way to the target for a visitor: through the tunnel, or straight to it. */
  readonly open: (visit: Visit) => Effect.Effect<DatagramChannel.DatagramChannel, E, Scope.Scope>
  /** What a failure of `open` counts as. */
  readonly refusal: Kind
}

/** Bytes that wait for the way of one session, and of all sessions of a port, at most. */
const limits = { session: 1024 * 1024, port: 64 * 1024 * 1024 }

/** A datagram counts as this much at least, or empty ones would wait without end. */
const overhead = 64

interface Session {
  readonly visitor: Address
  inbox: Array<Uint8Array>
  held: number
  /** Somebody waits for the inbox to fill. */
  reader: (() => void) | undefined
}

/**
 * Serves visitors for ever. A datagram that finds no room is dropped, the newest first, and counted; so is a visitor
 * who finds no slot.
 *
 * Sessions live in the caller's scope: interrupting this stops receiving from visitors and harms no session.
 */
export const serve = <E extends RefusalError>({
  open,
  refusal,
  socket
}: Options<E>): Effect.Effect<never, never, DatagramRelay | Refusals | Scope.Scope | Settings | Slots> =>
  Effect.gen(function* () {
    const checks = yield* DatagramChannel.checks
    const refusals = yield* Refusals
    const relay = yield* DatagramRelay
    const slots = yield* Slots
    const parent = yield* Effect.scope
    const sessions = new Map<string, Session>()
    let held = 0

    const push = (session: Session, bytes: Uint8Array): boolean => {
      const weight = Math.max(bytes.length, overhead)
      if (session.held + weight > limits.session || held + weight > limits.port) return false
      session.held += weight
      held += weight
      session.inbox.push(bytes)
      session.reader?.()
      return true
    }
    const pull = (session: Session): ReadonlyArray<Uint8Array> => {
      const { inbox } = session
      held -= session.held
      session.held = 0
      session.inbox = []
      return inbox
    }

    const flowOf = (session: Session): DatagramChannel.DatagramChannel => {
      const details = { visitor: String(session.visitor) }
      const receive: DatagramChannel.DatagramChannel["receive"] = Effect.suspend(() => {
        if (session.inbox.length > 0) return Effect.succeedSome(pull(session))
        return Effect.zipRight(
          Effect.async<void>((resume) => {
            session.reader = () => {
              session.reader = undefined
              resume(Effect.void)
            }
            return Effect.sync(() => {
              session.reader = undefined
            })
          }),
          receive
        )
      })
      return {
        receive,
        unsent: () => 0,
        send: (datagrams) =>
          Effect.flatMap(socket.send(datagrams.map((bytes) => ({ peer: session.visitor, bytes }))), (refused) =>
            checks.full(refused, limits.session, details)
          )
      }
    }

    const visit = (session: Session, scope: Scope.CloseableScope): Effect.Effect<void> => {
      const { visitor } = session
      const details = { visitor: String(visitor), protocol: "udp" }
      return Effect.tapError(open({ protocol: "udp", visitor, entry: Option.some(socket.address) }), (error) =>
        refusals.count(refusal, error, { details })
      ).pipe(
        // What was refused is counted; what an open session did not get to is the next one's.
        Effect.tapError(() => Effect.sync(() => pull(session))),
        Effect.flatMap((far) => Effect.annotateLogs(relay.exchange(flowOf(session), far), details)),
        Effect.catchAll((error) =>
          Effect.logDebug("visit ended early").pipe(Effect.annotateLogs({ ...details, why: error.message }))
        ),
        Scope.extend(scope),
        Effect.onExit((exit) => {
          sessions.delete(details.visitor)
          return Scope.close(scope, exit)
        }),
        Effect.flatMap(() => arrive(pull(session).map((bytes) => ({ peer: visitor, bytes })))),
        Effect.onInterrupt(() => Effect.sync(() => pull(session)))
      )
    }

    /** A session with its slot, unless there is none. */
    const begin = (key: string, visitor: Address) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
          const slot = yield* Effect.either(Scope.extend(slots.acquire, scope))
          if (slot._tag === "Left") {
            yield* Scope.close(scope, Exit.void)
            yield* refusals.count("slot", slot.left, { details: { visitor: String(visitor), protocol: "udp" } })
            return Option.none()
          }
          const session: Session = { visitor, inbox: [], held: 0, reader: undefined }
          sessions.set(key, session)
          yield* Effect.forkIn(restore(visit(session, scope)), parent)
          return Option.some(session)
        })
      )

    /** Those of sessions under way go in at once; what is left begins one, or has no room. */
    const arrive = (datagrams: ReadonlyArray<Datagram>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const others = datagrams.filter(({ bytes, peer }) => {
          const known = sessions.get(String(peer))
          return known === undefined || !push(known, bytes)
        })
        return others.length === 0 ? Effect.void : Effect.forEach(others, arriveFirst, { discard: true })
      })

    const arriveFirst = ({ bytes, peer }: Datagram): Effect.Effect<void> => {
      const key = String(peer)
      const known = sessions.get(key)
      const session = known === undefined ? begin(key, peer) : Effect.succeedSome(known)
      return Effect.flatMap(session, (session) =>
        Option.isNone(session) || push(session.value, bytes)
          ? Effect.void
          : checks.full(1, limits.session, { visitor: key })
      )
    }

    let dropped = 0
    const port = { port: String(socket.address) }
    return yield* socket.receive.pipe(
      // A port that hears anybody has nobody to fail for; whatever it is must not end the tunnel, nor spin.
      Effect.catchAll((error) =>
        Effect.as(Effect.delay(refusals.count("datagram", error, { details: port }), "100 millis"), [])
      ),
      Effect.flatMap((datagrams) =>
        Effect.suspend(() => {
          const before = dropped
          dropped = socket.dropped()
          const fitting = checks.fitting(datagrams, port)
          return Effect.zipRight(checks.full(dropped - before, limits.session, port), Effect.flatMap(fitting, arrive))
        })
      ),
      Effect.forever
    )
  })
