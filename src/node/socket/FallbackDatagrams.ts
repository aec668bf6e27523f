/**
 * A UDP socket associated with a peer that has several addresses.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Address from "../../core/Address.js"
import { type Datagram, type DatagramSocket, TransportError } from "../../transport/Transport.js"
import type { IpAddress } from "./NodeHosts.js"

/**
 * Sends to the first address. When it refuses or is unreachable before anything was received from it, the socket of the
 * next address takes its place, and what was sent is sent again.
 *
 * Fails with the error of the last address when no socket can be opened.
 */
export const make = (
  peer: Address.Address,
  addresses: ReadonlyArray<IpAddress>,
  associate: (ipAddress: IpAddress) => Effect.Effect<DatagramSocket, TransportError, Scope.Scope>
): Effect.Effect<DatagramSocket, TransportError, Scope.Scope> =>
  Effect.gen(function* () {
    const parent = yield* Effect.scope
    const untried = [...addresses]
    const openNext = (
      error: TransportError
    ): Effect.Effect<readonly [DatagramSocket, Scope.CloseableScope], TransportError> =>
      Effect.suspend(() => {
        const next = untried.shift()
        if (next === undefined) return Effect.fail(error)
        return Effect.uninterruptible(
          Effect.flatMap(Scope.fork(parent, ExecutionStrategy.sequential), (scope) =>
            Scope.extend(associate(next), scope).pipe(
              Effect.map((socket) => [socket, scope] as const),
              Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
            )
          )
        ).pipe(Effect.catchAll(openNext))
      })
    let [current, scope] = yield* openNext(
      new TransportError({ operation: "connect", address: peer, reason: "UnknownHost" })
    )
    if (untried.length === 0) return current

    /** What was sent to the present address, which has not answered yet. */
    let unanswered: Array<Datagram> = []
    let dropped = 0
    const replace = (error: TransportError) =>
      Effect.uninterruptible(
        Effect.gen(function* () {
          const [next, nextScope] = yield* openNext(error)
          dropped += current.dropped()
          const previous = scope
          ;[current, scope] = [next, nextScope]
          yield* Scope.close(previous, Exit.void)
          yield* current.send(unanswered)
        })
      )
    const receive: DatagramSocket["receive"] = Effect.suspend(() => current.receive).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          untried.length = 0
          unanswered = []
        })
      ),
      Effect.catchIf(
        ({ reason }) => untried.length > 0 && (reason === "Refused" || reason === "Unreachable"),
        (error) =>
          Effect.zipRight(
            replace(error),
            Effect.suspend(() => receive)
          )
      )
    )
    return {
      get address() {
        return current.address
      },
      receive,
      send: (datagrams) =>
        Effect.suspend(() => {
          if (untried.length > 0) unanswered = [...unanswered, ...datagrams].slice(0, maxUnanswered)
          return current.send(datagrams)
        }),
      dropped: () => dropped + current.dropped()
    }
  })

// internal

/** Datagrams kept to be sent again. A first question rarely has more. */
const maxUnanswered = 16
