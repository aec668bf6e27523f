/**
 * The tunnel port of a server. A connection is an unauthenticated peer until its handshake: such peers are limited in
 * number and time, and none delays another.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { Deadlines } from "../core/Deadlines.js"
import { type RefusalError, Refusals } from "../core/Refusals.js"
import type { Crypto } from "../transport/Crypto.js"
import type { Settings } from "../transport/Settings.js"
import * as Transport from "../transport/Transport.js"
import type { Deflate } from "../wire/Deflate.js"
import * as FirstMessage from "../wire/FirstMessage.js"
import * as Handshake from "../wire/Handshake.js"
import type { TunnelKey } from "../wire/TunnelKey.js"
import * as HelloGuard from "./HelloGuard.js"
import * as TunnelGate from "./TunnelGate.js"

export interface TunnelPort {
  readonly listener: Transport.Listener
  readonly gate: TunnelGate.TunnelGate
}

/** Opens the port. Fails as `Transport.listen` does. */
export const open = (
  address: Address,
  options?: TunnelGate.Options
): Effect.Effect<TunnelPort, Transport.TransportError, Refusals | Scope.Scope | Transport.Transport> =>
  Effect.gen(function* () {
    const { listen } = yield* Transport.Transport
    const gate = yield* TunnelGate.make(options)
    return { listener: yield* listen(address, { port: "tunnel", admit: gate.admit, screen: gate.screen }), gate }
  })

/** A connection whose first message was valid. Its handler owns `scope`, and with it the connection. */
export interface Arrival {
  readonly connection: Transport.Connection
  readonly scope: Scope.CloseableScope
}

export interface Options<R> {
  /** The tunnel keys in force. */
  readonly keys: Effect.Effect<ReadonlyArray<TunnelKey>>
  /**
   * A client whose tunnel key was replaced first tries its newest key before the previous one. The returned function tells,
   * a little later, whether a peer with a wrong key was such a client. `undefined` when there is none that it could be.
   */
  readonly mayHaveNewerKey: (peer: Address) => (() => boolean) | undefined
  /** What the server offers to clients. */
  readonly offer?: Handshake.Offer | undefined
  /** Handles a client that has proved that it knows a tunnel key. */
  readonly onClient: (arrival: Arrival, candidate: Handshake.Candidate) => Effect.Effect<void, RefusalError, R>
  /** Handles a pool connection, which claims to belong to a session. */
  readonly onJoin: (
    arrival: Arrival,
    join: Extract<FirstMessage.FirstMessage, { _tag: "Join" }>
  ) => Effect.Effect<void, RefusalError, R>
}

/**
 * Serves the tunnel port for ever.
 *
 * A peer that does not authenticate within the handshake timeout is reset. `TunnelGate` decides which ones may try.
 */
export const serve = <R>(
  { gate, listener }: TunnelPort,
  options: Options<R>
): Effect.Effect<never, never, Crypto | Deadlines | Deflate | R | Refusals | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const refusals = yield* Refusals
    const receive = yield* makeReceive(gate, { keys: options.keys, guard: yield* HelloGuard.make })
    return yield* Transport.serveOwning(listener, (connection, scope) => {
      const arrival: Arrival = { connection, scope }
      const peer = gate.enter(connection.remote)
      const authenticated = Effect.sync(() => peer.leave("authenticated"))
      // When a session ends, its client is opening pool connections: they are closed, or come too late.
      const isExpected = (error: RefusalError) =>
        (error.reason === "Ended" || error.reason === "UnknownSession") && gate.isKnown(connection.remote)
      const count = (error: RefusalError, level: "info" | "warning") =>
        refusals.count(error instanceof TunnelGate.PeersDropped ? "dropped" : "handshake", error, {
          details: { peer: String(connection.remote) },
          level
        })
      const refuse = (error: RefusalError) =>
        Effect.suspend(() => {
          const hadNewerKey = error.reason === "WrongKey" ? options.mayHaveNewerKey(connection.remote) : undefined
          if (hadNewerKey === undefined) return count(error, isExpected(error) ? "info" : "warning")
          deadlines.after(
            returnTime,
            Effect.suspend(() => count(error, hadNewerKey() ? "info" : "warning"))
          )
          return Effect.void
        })
      return receive(connection).pipe(
        Effect.flatMap((newcomer) =>
          newcomer._tag === "Join"
            ? Effect.tapError(options.onJoin(arrival, newcomer), () => connection.reset).pipe(Effect.tap(authenticated))
            : // Afterwards it may be declined by an answer, which a reset would overtake.
              Effect.tapError(Handshake.challenge(connection, newcomer, options.offer), () => connection.reset).pipe(
                Effect.tap(authenticated),
                Effect.flatMap((candidate) => options.onClient(arrival, candidate))
              )
        ),
        Effect.catchAll((error) => Effect.zipRight(Scope.close(scope, Exit.void), refuse(error))),
        Effect.onExit((exit) => {
          peer.leave("failed")
          return Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void
        })
      )
    })
  })

// internal

/** Within this time a client whose newest key is not known yet has authenticated with the previous one. */
const returnTime = Duration.seconds(2)

/** Reads the first message of a connection, and resets the connection if there is none to be served. */
const makeReceive = (gate: TunnelGate.TunnelGate, options: FirstMessage.Options) =>
  Effect.map(Deadlines, ({ after }) => (connection: Transport.Connection) => {
    let isEvicted = false
    const evict = Effect.suspend(() => {
      isEvicted = gate.isCrowded()
      return isEvicted ? connection.reset : Effect.void
    })
    const cancelEviction = after(TunnelGate.patience, evict)
    return Effect.matchEffect(FirstMessage.receive(connection, options), {
      onFailure: (error) => {
        cancelEviction()
        const refused = isEvicted ? new TunnelGate.PeersDropped({ reason: "Silent" }) : error
        return Effect.zipRight(connection.reset, Effect.fail(refused))
      },
      onSuccess: (first) => {
        cancelEviction()
        return Effect.succeed(first)
      }
    })
  })
