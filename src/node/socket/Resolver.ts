/**
 * Resolves host names to IP addresses, with a cache, for all sockets of the process.
 *
 * Each name has one lookup at a time, which all callers share. `Lookups` decides which ones may block a thread.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Net from "node:net"
import * as Address from "../../core/Address.js"
import type { Transport } from "../../transport/Transport.js"
import * as Lookups from "./Lookups.js"
import * as NodeHosts from "./NodeHosts.js"
import type { IpAddress } from "./NodeHosts.js"

export interface Resolved {
  readonly addresses: ReadonlyArray<IpAddress>
  /** Not looked up for this call: when none of the addresses works, `refresh` may return others. */
  readonly isCached: boolean
}

export interface Resolver {
  /**
   * The addresses of a host, the preferred one first. An IP address resolves to itself; `localhost`, names below it, an
   * empty host and `*` to the loopback addresses of this machine. None of these is looked up.
   *
   * Addresses are used for `lifetime`, which defaults to 5 minutes. For as long again they are used while a lookup
   * refreshes them in the background, and later only when a lookup fails without an answer.
   * Fails with the error of `dns.lookup`, which is remembered for a second, and with `ENODEV` for an unknown zone.
   */
  readonly resolve: (host: string, lifetime?: Duration.Duration) => Effect.Effect<Resolved, NodeJS.ErrnoException>
  /** The addresses that `resolve` would use without a lookup; `undefined` when it would look the name up, or fail. */
  readonly known: (host: string, lifetime?: Duration.Duration) => ReadonlyArray<IpAddress> | undefined
  /** Looks a name up now, unless it was within the last second. Fails like `resolve`. */
  readonly refresh: (host: string) => Effect.Effect<ReadonlyArray<IpAddress>, NodeJS.ErrnoException>
  /** Begins to do the same, and does not wait for it. */
  readonly refreshLater: (host: string) => void
}

export const defaultLifetime = Duration.minutes(5)

export const make = (options?: Lookups.Options): Resolver => {
  const now = options?.now ?? (() => performance.now())
  const lookups = Lookups.make<Name>({ ...options, now }, (name, error, addresses) => {
    if (error === null) name.found = { addresses, at: now() }
    else if (error.code === "ENOTFOUND") name.found = undefined
    name.failure = error === null ? undefined : { error, at: now() }
    const callers = [...name.callers]
    name.callers.clear()
    for (const caller of callers) caller()
  })
  const names = new Map<string, Name>()

  const nameOf = (host: string): Name => {
    const text = host.toLowerCase()
    const name = names.get(text) ?? { text, callers: new Set(), lookup: "None", isQuick: false }
    // The name that was used last is at the end.
    names.delete(text)
    names.set(text, name)
    for (const [oldest, { lookup }] of names) {
      if (names.size <= maxNames) break
      if (lookup === "None") names.delete(oldest)
    }
    return name
  }
  const isRecent = (at: number | undefined) => at !== undefined && now() - at < rememberMillis
  const wait = (name: Name) =>
    Effect.async<ReadonlyArray<IpAddress>, NodeJS.ErrnoException>((resume) => {
      const caller = () =>
        resume(
          name.failure === undefined ? Effect.succeed(name.found?.addresses ?? []) : Effect.fail(name.failure.error)
        )
      name.callers.add(caller)
      lookups.begin(name)
      return Effect.sync(() => name.callers.delete(caller))
    })

  const resolve: Resolver["resolve"] = (host, lifetime = defaultLifetime) =>
    Effect.suspend(() => {
      const known = withoutLookup(host)
      if (known !== undefined) return Either.map(known, (addresses) => ({ addresses, isCached: false }))
      const name = nameOf(host)
      const { failure, found } = name
      const age = found === undefined ? Infinity : now() - found.at
      const millis = Duration.toMillis(lifetime)
      const cached = Effect.sync(() => ({ addresses: found?.addresses ?? [], isCached: true }))
      if (age < millis) return cached
      if (failure !== undefined && isRecent(failure.at))
        return found === undefined ? Effect.fail(failure.error) : cached
      if (age < 2 * millis) {
        lookups.begin(name)
        return cached
      }
      return wait(name).pipe(
        Effect.map((addresses) => ({ addresses, isCached: false })),
        // A name that does not exist any more has no addresses left in `name`.
        Effect.catchAll((error) => (name.found === undefined ? Effect.fail(error) : cached))
      )
    })

  return {
    resolve,
    known: (host, lifetime = defaultLifetime) => {
      const known = withoutLookup(host)
      if (known !== undefined) return Either.getOrUndefined(known)
      const { found } = nameOf(host)
      return found !== undefined && now() - found.at < Duration.toMillis(lifetime) ? found.addresses : undefined
    },
    refresh: (host) =>
      Effect.suspend(() => {
        const known = withoutLookup(host)
        if (known !== undefined) return known
        const name = nameOf(host)
        const { failure, found } = name
        if (failure !== undefined && isRecent(failure.at)) return Effect.fail(failure.error)
        return found !== undefined && isRecent(found.at) ? Effect.succeed(found.addresses) : wait(name)
      }),
    refreshLater: (host) => {
      if (withoutLookup(host) !== undefined) return
      const name = nameOf(host)
      if (!isRecent(name.failure?.at) && !isRecent(name.found?.at)) lookups.begin(name)
    }
  }
}

/** See `Transport`. */
export const reaches =
  ({ resolve }: Resolver): Transport["Type"]["reaches"] =>
  (target, own) => {
    const hostsOf = (address: Address.Address) =>
      Effect.map(resolve(Address.isWildcard(address) ? "" : address.host), ({ addresses }) =>
        addresses.map(({ host }) => NodeHosts.addressOf(host, 0).host)
      )
    return Effect.all([hostsOf(target), hostsOf(own)]).pipe(
      Effect.map(([targetHosts, ownHosts]) =>
        targetHosts.some((host) => ownHosts.includes(host) || (Address.isWildcard(own) && NodeHosts.isOwn(host)))
      ),
      Effect.orElseSucceed(() => false)
    )
  }

/** The resolver of this process: all its sockets share the threads. */
export const shared = (): Resolver => (ofProcess ??= make())

// internal

let ofProcess: Resolver | undefined

/** What is known of a name. */
interface Name extends Lookups.Name {
  /** Called when the lookup has ended. */
  readonly callers: Set<() => void>
  found?: { readonly addresses: ReadonlyArray<IpAddress>; readonly at: number } | undefined
  failure?: { readonly error: NodeJS.ErrnoException; readonly at: number } | undefined
}

/** Names of which anything is known. Those used longest ago are removed first. */
const maxNames = 1024
/** Milliseconds for which a failure is remembered, and for which a lookup is new enough for `refresh`. */
const rememberMillis = 1000

/** The addresses of a host that needs no lookup, or why there are none; `undefined` for a name. */
const withoutLookup = (host: string): Either.Either<ReadonlyArray<IpAddress>, NodeJS.ErrnoException> | undefined => {
  if (host === "" || host === "*" || /^(.+\.)?localhost\.?$/i.test(host)) return Either.right(NodeHosts.loopback())
  const family = Net.isIP(host)
  if (family === 0) return undefined
  if (!host.includes("%")) return Either.right([{ host, family: family === 6 ? 6 : 4 }])
  const [address = "", zone = ""] = host.split("%")
  // Node's sockets know interfaces by name only.
  const name = NodeHosts.interfaceName(zone)
  return name === undefined
    ? Either.left(Object.assign(new Error(`no network interface ${zone}`), { code: "ENODEV" }))
    : Either.right([{ host: `${address}%${name}`, family: 6 }])
}
