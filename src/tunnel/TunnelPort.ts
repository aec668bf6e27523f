/**
 * The tunnel port of a server. A connection is an unauthenticated peer until its handshake: such peers are limited in
 * number and time, and none delays another.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Deadlines } from "../core/Deadlines.js"
import { type RefusalError, Refusals } from "../core/Refusals.js"
import type { Crypto } from "../transport/Crypto.js"
import type { Settings } from "../transport/Settings.js"
import * as Transport from "../transport/Transport.js"
import type { Deflate } from "../wire/Deflate.js"
import * as Handshake from "../wire/Handshake.js"
import type * as Key from "../wire/Key.js"

/** A connection whose first line was valid. Its handler owns `scope`, and with it the connection. */
export interface Arrival {
  readonly connection: Transport.Connection
  readonly scope: Scope.CloseableScope
}

export interface Options<R> {
  readonly listener: Transport.Listener
  /** The tunnel keys in force. */
  readonly keys: Effect.Effect<ReadonlyArray<Key.Stretched>>
  /** The most unauthenticated peers at a time. Defaults to `512`. */
  readonly limit?: number | undefined
  /** Handles a client that has proved that it knows a tunnel key. */
  readonly onClient: (arrival: Arrival, candidate: Handshake.Candidate) => Effect.Effect<void, RefusalError, R>
  /** Handles a pool connection, which claims to belong to a session. */
  readonly onJoin: (
    arrival: Arrival,
    join: Extract<Handshake.FirstLine, { _tag: "Join" }>
  ) => Effect.Effect<void, RefusalError, R>
}

/**
 * Serves the tunnel port for ever.
 *
 * A peer that does not authenticate within the handshake timeout is closed. When there are too many, the oldest peer of
 * the address that has most of them is closed, so that a flood from one address cannot lock a client out.
 */
export const serve = <R>(
  options: Options<R>
): Effect.Effect<never, never, Crypto | Deadlines | Deflate | R | Refusals | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const peers = makePeers(options.limit ?? 512)
    return yield* Transport.serveOwning(options.listener, (connection, scope) => {
      const arrival: Arrival = { connection, scope }
      const peer: UnauthenticatedPeer = { host: connection.remote.host, scope }
      const leave = Effect.sync(() => peers.remove(peer))
      const refuse = (error: RefusalError) =>
        Effect.zipRight(
          Scope.close(scope, Exit.void),
          refusals.count("handshake", error, { details: { peer: String(connection.remote) } })
        )
      return peers.add(peer).pipe(
        Effect.zipRight(Handshake.receive(connection, options.keys)),
        Effect.flatMap((newcomer) =>
          newcomer._tag === "Join"
            ? Effect.zipRight(leave, options.onJoin(arrival, newcomer))
            : Handshake.challenge(connection, newcomer).pipe(
                Effect.tap(leave),
                Effect.flatMap((candidate) => options.onClient(arrival, candidate))
              )
        ),
        Effect.catchAll(refuse),
        Effect.onExit((exit) => Effect.zipRight(leave, Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
      )
    })
  })

// internal

interface UnauthenticatedPeer {
  readonly host: string
  readonly scope: Scope.CloseableScope
}

const makePeers = (limit: number) => {
  const peers = new Set<UnauthenticatedPeer>()
  return {
    /** Closes another peer first if there are too many. */
    add: (peer: UnauthenticatedPeer) =>
      Effect.suspend(() => {
        const evicted = peers.size < limit ? undefined : oldestOfBusiestHost(peers)
        peers.add(peer)
        if (evicted === undefined) return Effect.void
        peers.delete(evicted)
        return Scope.close(evicted.scope, Exit.void)
      }),
    remove: (peer: UnauthenticatedPeer) => peers.delete(peer)
  }
}

const oldestOfBusiestHost = (peers: Iterable<UnauthenticatedPeer>): UnauthenticatedPeer | undefined => {
  const counts = new Map<string, number>()
  for (const { host } of peers) counts.set(host, (counts.get(host) ?? 0) + 1)
  let oldest: UnauthenticatedPeer | undefined
  for (const peer of peers) {
    if ((counts.get(peer.host) ?? 0) > (counts.get(oldest?.host ?? "") ?? 0)) oldest = peer
  }
  return oldest
}
