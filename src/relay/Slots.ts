/**
 * How many visitors may be served at once.
 *
 * UDP gets at most two thirds of the slots, and one network (IPv4 /24, IPv6 /64) at most a quarter of those. The address
 * of a UDP visitor may be forged, so a UDP visitor without a free slot takes that of the UDP session that was silent
 * longest: of those that are not two-way while they are more than an eighth, else of the two-way ones. So forged addresses
 * end few two-way sessions, and new visitors do not end one another before they are answered. A TCP visitor without a free
 * slot takes that of a session that is not two-way only.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { Refusals } from "../core/Refusals.js"
import { Capacity } from "./Capacity.js"
import * as NetworkPrefix from "./NetworkPrefix.js"
import * as RecencyList from "./RecencyList.js"
import { withoutStack } from "../core/WithoutStack.js"

/** Every slot is in use. The visitor is reset; the tunnel does not retry for it. */
export class SlotsFull extends withoutStack(Schema.TaggedError<SlotsFull>()("SlotsFull", { limit: Schema.Number })) {
  override get message(): string {
    return `all ${this.limit} slots are in use`
  }
}

/** A UDP session was ended because another visitor needed its slot. */
export class UdpSessionEvicted extends withoutStack(
  Schema.TaggedError<UdpSessionEvicted>()("UdpSessionEvicted", {
    /** What was full: all slots, those that UDP may use, or those that the sessions of one network may use. */
    reason: Schema.Literal("Slots", "Udp", "Prefix"),
    limit: Schema.Number
  })
) {
  override get message(): string {
    const full = {
      Slots: `all ${this.limit} slots are in use`,
      Udp: `UDP uses all ${this.limit} slots that it may have`,
      Prefix: `one network (IPv4 /24, IPv6 /64) uses all ${this.limit} slots that it may have for UDP`
    }
    return `${full[this.reason]}: ended the UDP session that was silent longest`
  }
}

export interface UdpVisit {
  readonly visitor: Address
  /** Ends the session, which no longer holds its slot. */
  readonly evict: () => void
}

/** The slot of a UDP session. */
export interface UdpSlot {
  /** A datagram passed: all others have been silent longer. */
  readonly touch: () => void
  /** The visitor has sent again after an answer: its address is not forged. */
  readonly confirm: () => void
}

export class Slots extends Context.Tag("nodepass/Slots")<
  Slots,
  {
    /** Holds one slot for a TCP visitor until the scope closes; fails at once when none is free. */
    readonly acquire: Effect.Effect<void, SlotsFull, Scope.Scope>
    /** Holds one slot for a TCP visitor until the returned function is called, once. `undefined` when none is free. */
    readonly acquireNow: () => (() => void) | undefined
    /**
     * Holds one slot for a UDP session until the scope closes or it is evicted. Fails at once when TCP has all slots.
     *
     * An evicted session is counted and logged as a refusal of the kind `evicted`.
     */
    readonly acquireUdp: (visit: UdpVisit) => Effect.Effect<UdpSlot, SlotsFull, Scope.Scope>
  }
>() {}

export interface Options {
  /** Slots for TCP and UDP visitors together. Defaults to no limit. */
  readonly limit?: number | undefined
}

/** The slots that UDP may use, and those that one network may use of them. */
export const shares = (limit: number): { readonly udp: number; readonly prefix: number } => {
  const udp = Math.max(1, Math.floor((limit * 2) / 3))
  return { udp, prefix: Math.max(minPrefixShare, Math.floor(udp / 4)) }
}

export const make = (options?: Options): Effect.Effect<Slots["Type"], never, Capacity | Refusals> =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const limit = Math.min(options?.limit ?? Infinity, (yield* Capacity).visitors)
    const share = shares(limit)
    const udp = makeUdpSessions()
    let tcp = 0
    const release = () => {
      tcp--
    }
    const releaseTcp = Effect.sync(release)
    const isFull = () => tcp + sizeOf(udp.all) >= limit

    /** Ends a session. The returned effect counts it, which may take a while: hold the slot before. */
    const evict = (victim: UdpSession, reason: UdpSessionEvicted["reason"], limit: number) => {
      udp.release(victim)
      victim.visit.evict()
      const error = new UdpSessionEvicted({ reason, limit })
      return refusals.count("evicted", error, { details: { visitor: String(victim.visit.visitor) } })
    }
    const holdTcp = Effect.scopeWith((scope) => {
      tcp++
      return Scope.addFinalizer(scope, releaseTcp)
    })
    const holdUdp = (visit: UdpVisit, prefix: string | undefined) =>
      Effect.scopeWith((scope) => {
        const session = udp.hold(visit, prefix)
        const slot: UdpSlot = { touch: () => udp.touch(session), confirm: () => udp.confirm(session) }
        const release = Effect.sync(() => udp.release(session))
        return Effect.as(Scope.addFinalizer(scope, release), slot)
      })
    /** What is full for a UDP visitor of this prefix. */
    const findFull = (prefix: string | undefined) => {
      const neighbours = udp.ofPrefix(prefix)
      if (neighbours !== undefined && sizeOf(neighbours) >= share.prefix) {
        return { group: neighbours, reason: "Prefix", limit: share.prefix } as const
      }
      if (sizeOf(udp.all) >= share.udp) return { group: udp.all, reason: "Udp", limit: share.udp } as const
      return isFull() ? ({ group: udp.all, reason: "Slots", limit } as const) : undefined
    }

    return Slots.of({
      // Half the cost of `acquireRelease`, which also keeps the fiber's refs for the release.
      acquire: Effect.uninterruptible(
        Effect.suspend(() => {
          if (!isFull()) return holdTcp
          const victim = udp.all.oneWay.oldest()
          if (victim === undefined) return Effect.fail(new SlotsFull({ limit }))
          return Effect.zipLeft(holdTcp, evict(victim, "Slots", limit))
        })
      ),
      acquireNow: () => {
        if (isFull()) return undefined
        tcp++
        return release
      },
      acquireUdp: (visit) =>
        Effect.uninterruptible(
          Effect.suspend(() => {
            const prefix = NetworkPrefix.of(visit.visitor)
            const full = findFull(prefix)
            if (full === undefined) return holdUdp(visit, prefix)
            const victim = silentLongest(full.group)
            if (victim === undefined) return Effect.fail(new SlotsFull({ limit }))
            return Effect.zipLeft(holdUdp(visit, prefix), evict(victim, full.reason, full.limit))
          })
        )
    })
  })

export const layer = (options?: Options): Layer.Layer<Slots, never, Capacity | Refusals> =>
  Layer.effect(Slots, make(options))

// internal

/** A network may always have this many UDP sessions, within the share of UDP. */
const minPrefixShare = 64

interface UdpSession {
  readonly visit: UdpVisit
  /** All sessions, and those of its prefix. */
  readonly groups: ReadonlyArray<Group>
  isTwoWay: boolean
  isHeld: boolean
  /** Its entry in each group. */
  entries: ReadonlyArray<RecencyList.Entry<UdpSession>>
}

/** Sessions by how long they have been silent: all, or those of one prefix. */
interface Group {
  readonly prefix: string | undefined
  readonly oneWay: RecencyList.RecencyList<UdpSession>
  readonly twoWay: RecencyList.RecencyList<UdpSession>
}

const makeGroup = (prefix?: string): Group => ({ prefix, oneWay: RecencyList.make(), twoWay: RecencyList.make() })
const sizeOf = ({ oneWay, twoWay }: Group): number => oneWay.size() + twoWay.size()
/** The session that a UDP visitor takes the slot of, when those of the group are all that there may be. */
const silentLongest = (group: Group): UdpSession | undefined => {
  const { oneWay, twoWay } = group
  const mayStay = oneWay.size() <= sizeOf(group) / 8
  return mayStay ? (twoWay.oldest() ?? oneWay.oldest()) : oneWay.oldest()
}

const makeUdpSessions = () => {
  const all = makeGroup()
  const prefixes = new Map<string, Group>()
  const groupOf = (prefix: string): Group => {
    const group = prefixes.get(prefix) ?? makeGroup(prefix)
    prefixes.set(prefix, group)
    return group
  }
  const listOf = ({ isTwoWay }: UdpSession, group: Group) => (isTwoWay ? group.twoWay : group.oneWay)
  const add = (session: UdpSession) => {
    session.entries = session.groups.map((group) => listOf(session, group).add(session))
  }
  const forEntries = (
    session: UdpSession,
    use: (list: RecencyList.RecencyList<UdpSession>, entry: RecencyList.Entry<UdpSession>) => void
  ) => {
    if (!session.isHeld) return
    for (const [at, entry] of session.entries.entries()) {
      const group = session.groups[at]
      if (group !== undefined) use(listOf(session, group), entry)
    }
  }
  return {
    all,
    /** The sessions of a prefix, if there are any. */
    ofPrefix: (prefix: string | undefined) => (prefix === undefined ? undefined : prefixes.get(prefix)),
    hold: (visit: UdpVisit, prefix: string | undefined): UdpSession => {
      const groups = prefix === undefined ? [all] : [all, groupOf(prefix)]
      const session: UdpSession = { visit, groups, isTwoWay: false, isHeld: true, entries: [] }
      add(session)
      return session
    },
    touch: (session: UdpSession) => forEntries(session, (list, entry) => list.touch(entry)),
    confirm: (session: UdpSession) => {
      if (!session.isHeld || session.isTwoWay) return
      forEntries(session, (list, entry) => list.remove(entry))
      session.isTwoWay = true
      add(session)
    },
    release: (session: UdpSession) => {
      forEntries(session, (list, entry) => list.remove(entry))
      session.isHeld = false
      for (const group of session.groups) {
        if (group.prefix !== undefined && sizeOf(group) === 0) prefixes.delete(group.prefix)
      }
    }
  }
}
