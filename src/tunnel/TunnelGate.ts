/**
 * Decides which connections to the tunnel port may try to authenticate. The decision takes a few microseconds, and nothing is
 * made or kept for a peer that is dropped.
 *
 * - Peers of an address that has authenticated lately go first.
 * - An address may fail a few times a second, and have a few unauthenticated peers at a time.
 * - The more unauthenticated peers there are, and the more of them come, the more newcomers are dropped, at random. So each
 *   of them has the same chance, and one who tries again gets through. (`MaxStartups` of sshd does the same.)
 *
 * A peer that authenticates gets back what it took: a client may fill its pool at once, and many clients may share an
 * address.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { PCGRandom } from "effect/Utils"
import type { Address } from "../core/Address.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import * as TokenBuckets from "../core/TokenBuckets.js"
import * as NetworkPrefix from "../relay/NetworkPrefix.js"
import * as RecencyList from "../relay/RecencyList.js"
import * as FirstMessage from "../wire/FirstMessage.js"
import { HandshakeError } from "../wire/HandshakeError.js"
import { withoutStack } from "../core/WithoutStack.js"

/** Connections to the tunnel port were reset before their handshake. */
export class PeersDropped extends withoutStack(
  Schema.TaggedError<PeersDropped>()("PeersDropped", {
    /**
     * `Crowd`: too many came from all addresses together. `Address`: too many of one address failed, or wait. `Silent`: it had
     * sent no whole first line while too many waited.
     */
    reason: Schema.Literal("Crowd", "Address", "Silent")
  })
) {
  override get message(): string {
    return {
      Crowd:
        "too many unauthenticated peers connect to the tunnel port: some are reset at random; a client among them tries again",
      Address: "one address has too many unauthenticated peers on the tunnel port: its next ones are reset",
      Silent: `an unauthenticated peer sent no first line within ${Duration.format(patience)} while many others wait: it is reset`
    }[this.reason]
  }
}

export interface TunnelGate {
  /** Whether a connection of this peer may try to authenticate; it must be reset otherwise. For `ListenOptions.admit`. */
  readonly admit: (peer: Address) => boolean
  /** Whether a connection that begins with these bytes may go on; it must be reset otherwise. For `ListenOptions.screen`. */
  readonly screen: (first: Uint8Array, peer: Address) => boolean
  /** Counts an unauthenticated peer, until it leaves. */
  readonly enter: (peer: Address) => Peer
  /** Whether a peer of this address has authenticated lately. */
  readonly isKnown: (peer: Address) => boolean
  /** Whether so many peers wait that one that has sent no valid first line should make room. */
  readonly isCrowded: () => boolean
}

/** An unauthenticated peer. */
export interface Peer {
  /** It has authenticated, or it has disconnected. A second call does nothing. */
  readonly leave: (how: "authenticated" | "failed") => void
}

export interface Options {
  /** The most unauthenticated peers at a time. Defaults to `512`. */
  readonly limit?: number | undefined
  /** The most idle pool connections, which a client may open at once. Defaults to `1024`. */
  readonly pool?: number | undefined
}

/** How long a peer may take to send its first line while there is a crowd. A client sends it with its first packet. */
export const patience = Duration.millis(250)

/** Counts what it drops as refusals, once a second, while the scope is open. */
export const make = (options?: Options): Effect.Effect<TunnelGate, never, Refusals | Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()
    const draw = Random.nextIntBetween(1, 2 ** 31)
    const random = new PCGRandom(yield* draw)
    const limit = options?.limit ?? 512
    const known = makeKnown(now, Math.max(minKnownTokens, options?.pool ?? 0))
    const failures = TokenBuckets.make({ ...perAddress, now, seed: yield* draw })
    const effort = makeEffort(now)
    const drops = yield* makeDrops
    /** Unauthenticated peers of unknown addresses, by address, and all of them; then those of known ones. */
    const waiting = new Map<string, number>()
    let unknownCount = 0
    let knownCount = 0
    const addressLimit = Math.max(1, Math.floor(limit / 8))

    /** The chance of a newcomer to be dropped, by the number of unauthenticated peers. */
    const crowding = () => {
      const start = limit * crowd.start
      if (unknownCount < start) return 0
      return crowd.rate + (1 - crowd.rate) * Math.min(1, (unknownCount - start) / (limit - start))
    }
    const admitUnknown = (peer: Address, key: string): boolean => {
      if (random.number() < Math.max(crowding(), effort.shortage())) return drops.note("Crowd", peer)
      const isAllowed = known.has(key) || ((waiting.get(key) ?? 0) < addressLimit && failures.take(key))
      if (!isAllowed) return drops.note("Address", peer)
      effort.take()
      return true
    }
    const count = (key: string, isKnown: boolean, change: 1 | -1) => {
      if (isKnown) {
        knownCount += change
        return
      }
      unknownCount += change
      const left = (waiting.get(key) ?? 0) + change
      if (left === 0) waiting.delete(key)
      else waiting.set(key, left)
    }
    return {
      admit: (peer) => {
        const key = NetworkPrefix.ofTcpPeer(peer)
        return (knownCount < 2 * limit && known.take(key)) || admitUnknown(peer, key)
      },
      screen: (first, peer) => {
        if (FirstMessage.canBegin(first)) return true
        // It has cost next to nothing. Its address has failed all the same.
        effort.giveBack()
        return drops.note("Malformed", peer)
      },
      enter: (peer) => {
        const key = NetworkPrefix.ofTcpPeer(peer)
        const isKnown = known.has(key)
        let hasLeft = false
        count(key, isKnown, 1)
        return {
          leave: (how) => {
            if (hasLeft) return
            hasLeft = true
            count(key, isKnown, -1)
            if (how === "failed") return
            failures.giveBack(key)
            effort.giveBack()
            known.add(key)
          }
        }
      },
      isKnown: (peer) => known.has(NetworkPrefix.ofTcpPeer(peer)),
      isCrowded: () => unknownCount > limit * crowd.start
    }
  })

// internal

/** Dropping begins at this part of the limit, with this chance, and is certain at the limit. */
const crowd = { start: 1 / 8, rate: 0.3 }

/** What an address may fail: so often at once, and so often a second. */
const perAddress = { capacity: 32, perSecond: 8 }

/**
 * What all unknown addresses together may fail, beside those that are reset by their first bytes. At some 0.3 ms of CPU for
 * each it is a third of a core.
 *
 * Below `scarce` tokens newcomers are dropped at random, so that the last tokens are not those of the fastest.
 */
const together = { capacity: 1000, perSecond: 1000, scarce: 500 }

/**
 * What a known address may fail: so often at once, or as often as its pool has connections, which it may open at once; and
 * so often a second. The rest competes with those of unknown ones.
 */
const minKnownTokens = 1024
const knownPerSecond = 100
const maxKnown = 1024
const knownMillis = 10 * 60_000

const reportInterval = Duration.seconds(1)

/** A token bucket for all of them. */
const makeEffort = (now: () => number) => {
  const { capacity, perSecond, scarce } = together
  let tokens = capacity
  let filledAt = now()
  return {
    /** The chance of a newcomer to be dropped. */
    shortage: () => {
      const at = now()
      tokens = Math.min(capacity, tokens + ((at - filledAt) / 1000) * perSecond)
      filledAt = at
      return Math.max(0, 1 - tokens / scarce)
    },
    take: () => {
      tokens--
    },
    giveBack: () => {
      tokens++
    }
  }
}

interface Known {
  readonly key: string
  tokens: number
  filledAt: number
  /** When a peer of it authenticated last. */
  seenAt: number
}

/** The addresses that have authenticated lately, each with a bucket of its own. */
const makeKnown = (now: () => number, capacity: number) => {
  const entries = new Map<string, RecencyList.Entry<Known>>()
  const list = RecencyList.make<Known>()
  const remove = (entry: RecencyList.Entry<Known>) => {
    entries.delete(entry.value.key)
    list.remove(entry)
  }
  const find = (key: string): Known | undefined => {
    const entry = entries.get(key)
    if (entry === undefined) return undefined
    if (now() - entry.value.seenAt < knownMillis) return entry.value
    remove(entry)
    return undefined
  }
  return {
    has: (key: string) => find(key) !== undefined,
    /** Takes a token of the address. Returns `false` when it has none, or is unknown. */
    take: (key: string): boolean => {
      const one = find(key)
      if (one === undefined) return false
      const at = now()
      one.tokens = Math.min(capacity, one.tokens + ((at - one.filledAt) / 1000) * knownPerSecond)
      one.filledAt = at
      if (one.tokens < 1) return false
      one.tokens--
      return true
    },
    /** A peer of the address has authenticated: it gets back its token. */
    add: (key: string) => {
      const entry = entries.get(key)
      if (entry !== undefined) {
        entry.value.seenAt = now()
        entry.value.tokens = Math.min(capacity, entry.value.tokens + 1)
        return list.touch(entry)
      }
      const oldest = entries.size < maxKnown ? undefined : list.oldest()
      const last = oldest && entries.get(oldest.key)
      if (last !== undefined) remove(last)
      entries.set(key, list.add({ key, tokens: capacity, filledAt: now(), seenAt: now() }))
    }
  }
}

/** Counts those that are dropped, and has them counted as refusals once a second: a refusal costs more than the drop. */
const makeDrops = Effect.gen(function* () {
  const refusals = yield* Refusals
  const dropped = yield* Effect.makeLatch(false)
  const counts = { Crowd: 0, Address: 0, Malformed: 0 }
  let last: Address | undefined
  const report = Effect.suspend(() => {
    dropped.unsafeClose()
    const { Address, Crowd, Malformed } = counts
    counts.Crowd = 0
    counts.Address = 0
    counts.Malformed = 0
    const peer = last
    if (peer === undefined) return Effect.void
    const countAs = (kind: Kind, error: RefusalError, times: number, name: string) =>
      times === 0 ? Effect.void : refusals.count(kind, error, { times, details: { peer: name } })
    return Effect.all(
      [
        countAs("dropped", new PeersDropped({ reason: "Crowd" }), Crowd, peer.host),
        countAs("dropped", new PeersDropped({ reason: "Address" }), Address, peer.host),
        countAs("handshake", new HandshakeError({ reason: "Malformed", peer }), Malformed, String(peer))
      ],
      { discard: true }
    )
  })
  yield* Effect.addFinalizer(() => report)
  yield* Effect.forkScoped(
    Effect.forever(Effect.zipRight(dropped.await, Effect.zipRight(report, Effect.sleep(reportInterval))))
  )
  return {
    note: (reason: keyof typeof counts, peer: Address): false => {
      counts[reason]++
      last = peer
      dropped.unsafeOpen()
      return false
    }
  }
})
