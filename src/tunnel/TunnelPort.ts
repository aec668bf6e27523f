/**
 * The tunnel port: every connection is a stranger until it has proved itself. Strangers are few, brief and cheap, and
 * none holds up another.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Crypto } from "../transport/Crypto.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { Deflate } from "../wire/Deflate.js"
import * as Handshake from "../wire/Handshake.js"
import type * as Key from "../wire/Key.js"
import { Refusals, type RefusalError } from "../core/Refusals.js"
import type { Settings } from "../transport/Settings.js"
import * as Transport from "../transport/Transport.js"

/** A newcomer that is past its first line. Whoever is given it owns `scope`, and with it the connection. */
export interface Arrival {
  readonly connection: Transport.Connection
  readonly scope: Scope.CloseableScope
}

export interface Options<R> {
  readonly listener: Transport.Listener
  /** The tunnel keys in force. */
  readonly keys: Effect.Effect<ReadonlyArray<Key.Stretched>>
  /** Strangers at once. Defaults to `512`. */
  readonly limit?: number | undefined
  /** Given each client that knows the key and proved that it is there now. */
  readonly onClient: (arrival: Arrival, candidate: Handshake.Candidate) => Effect.Effect<void, RefusalError, R>
  /** Given each newcomer that claims to belong to a session. */
  readonly onJoin: (
    arrival: Arrival,
    join: Extract<Handshake.FirstLine, { _tag: "Join" }>
  ) => Effect.Effect<void, RefusalError, R>
}

interface Stranger {
  readonly host: string
  readonly scope: Scope.CloseableScope
}

/**
 * Serves the tunnel port for ever.
 *
 * A stranger is closed unless it proves itself within the handshake timeout. When there are too many, the oldest of
 * the address with most of them makes room, so that a flood from elsewhere cannot keep a client out.
 */
export const serve = <R>(
  options: Options<R>
): Effect.Effect<never, never, Crypto | Deadlines | Deflate | R | Refusals | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const limit = options.limit ?? 512
    const refusals = yield* Refusals
    const strangers = new Set<Stranger>()

    const enter = (stranger: Stranger) =>
      Effect.suspend(() => {
        const evicted = strangers.size < limit ? undefined : oldestOfTheBusiest(strangers)
        strangers.add(stranger)
        if (evicted === undefined) return Effect.void
        strangers.delete(evicted)
        return Scope.close(evicted.scope, Exit.void)
      })

    return yield* Transport.serveOwning(options.listener, (connection, scope) => {
      const arrival: Arrival = { connection, scope }
      const stranger: Stranger = { host: connection.remote.host, scope }
      const leave = Effect.sync(() => strangers.delete(stranger))
      return enter(stranger).pipe(
        Effect.zipRight(Handshake.receive(connection, options.keys)),
        Effect.flatMap((newcomer) =>
          newcomer._tag === "Join"
            ? Effect.zipRight(leave, options.onJoin(arrival, newcomer))
            : Handshake.challenge(connection, newcomer).pipe(
                Effect.tap(leave),
                Effect.flatMap((candidate) => options.onClient(arrival, candidate))
              )
        ),
        Effect.catchAll((error) =>
          Effect.zipRight(
            Scope.close(scope, Exit.void),
            refusals.count("handshake", error, { details: { peer: String(connection.remote) } })
          )
        ),
        Effect.onExit((exit) => Effect.zipRight(leave, Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
      )
    })
  })

// internal

const oldestOfTheBusiest = (strangers: Iterable<Stranger>): Stranger | undefined => {
  const counts = new Map<string, number>()
  for (const { host } of strangers) counts.set(host, (counts.get(host) ?? 0) + 1)
  let busiest: Stranger | undefined
  for (const stranger of strangers) {
    if ((counts.get(stranger.host) ?? 0) > (counts.get(busiest?.host ?? "") ?? 0)) busiest = stranger
  }
  return busiest
}
