/**
 * What a server shares among the first messages of all connections: the memory that refuses a replay, and the budget for
 * stretching the key for unauthenticated peers.
 *
 * A server stretches a key that a person chose once for each address that clients connect to. Other addresses are limited:
 * each network has a few stretchings, all together have one a second, and one runs at a time.
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Random from "effect/Random"
import type { Address } from "../core/Address.js"
import * as TokenBuckets from "../core/TokenBuckets.js"
import * as NetworkPrefix from "../relay/NetworkPrefix.js"
import type { HelloGuard } from "../wire/FirstMessage.js"
import { clockTolerance } from "../wire/HandshakeError.js"

/** First messages that are remembered, at most. Only those who know the key add to them; beyond that, none is accepted. */
export const maxHellos = 65_536

/** A message is accepted from `clockTolerance` before its time until `clockTolerance` after it. */
const memoryMillis = 2 * clockTolerance

/** What one network may ask for, and all networks together. */
const perNetwork = { capacity: 3, perSecond: 0.2, buckets: 4096 }
const together = { capacity: 8, perSecond: 1, buckets: 1 }

export const make: Effect.Effect<HelloGuard> = Effect.gen(function* () {
  const turn = yield* Effect.makeSemaphore(1)
  const clock = yield* Effect.clock
  const now = () => clock.unsafeCurrentTimeMillis()
  const seed = yield* Random.nextIntBetween(1, 2 ** 31)
  const networks = TokenBuckets.make({ ...perNetwork, now, seed })
  const all = TokenBuckets.make({ ...together, now, seed })
  const mayStretch = (peer: Address) => {
    const network = NetworkPrefix.of(peer)
    return (network === undefined || networks.take(network)) && all.take("")
  }
  return {
    isNew: makeMemory(),
    stretch: (peer, stretching) =>
      Effect.suspend(() => (mayStretch(peer) ? Effect.asSome(turn.withPermits(1)(stretching)) : Effect.succeedNone))
  }
})

// internal

/** Whether an ephemeral key is new. Those that are too old to be accepted again are forgotten. */
const makeMemory = (): HelloGuard["isNew"] => {
  const since = new Map<string, number>()
  return (ephemeral, now) => {
    for (const [name, at] of since) {
      // A clock that was set back must not make the memory eternal.
      if (now - at < memoryMillis && at <= now) break
      since.delete(name)
    }
    const name = Encoding.encodeBase64(ephemeral)
    if (since.has(name) || since.size >= maxHellos) return false
    since.set(name, now)
    return true
  }
}
