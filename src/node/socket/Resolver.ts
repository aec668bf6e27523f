/**
 * Resolves host names to IP addresses, with a cache, for all sockets of the process.
 *
 * `getaddrinfo` blocks a thread of libuv's pool until it answers, and libuv lends it half of the threads. So each name has
 * one lookup at a time, which all callers share, and names that are slow to resolve leave a thread to the others.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Dns from "node:dns"
import * as Net from "node:net"
import process from "node:process"
import * as Address from "../../core/Address.js"
import type { Transport } from "../../transport/Transport.js"
import * as NodeHosts from "./NodeHosts.js"
import type { IpAddress } from "./NodeHosts.js"

export interface Resolved {
  readonly addresses: ReadonlyArray<IpAddress>
  /** Not looked up for this call: when none of the addresses works, `refresh` may know others. */
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
  /** Looks a name up now, unless it was within the last second. Fails like `resolve`. */
  readonly refresh: (host: string) => Effect.Effect<ReadonlyArray<IpAddress>, NodeJS.ErrnoException>
  /** Begins to do the same, and does not wait for it. */
  readonly refreshLater: (host: string) => void
}

export interface Options {
  /** Resolves a name. Defaults to `getaddrinfo`. */
  readonly lookup?: Lookup | undefined
  /** Lookups at the same time. Defaults to what libuv's pool has threads for, at least one less than it has. */
  readonly concurrency?: number | undefined
  /** The milliseconds of a monotonic clock. */
  readonly now?: (() => number) | undefined
}

export type Lookup = (
  name: string,
  done: (error: NodeJS.ErrnoException | null, addresses: ReadonlyArray<IpAddress>) => void
) => void

export const defaultLifetime = Duration.minutes(5)

export const make = (options?: Options): Resolver => {
  const now = options?.now ?? (() => performance.now())
  const lookups = makeLookups({ ...options, now })
  const names = new Map<string, Name>()

  const nameOf = (host: string): Name => {
    const text = host.toLowerCase()
    const name = names.get(text) ?? { text, callers: new Set(), lookup: "None", isSlow: false }
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
      if (known !== undefined) return known
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
    refresh: (host) =>
      Effect.suspend(() => {
        const known = withoutLookup(host)
        if (known !== undefined) return Effect.map(known, ({ addresses }) => addresses)
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
interface Name {
  readonly text: string
  /** Called when the lookup has ended. */
  readonly callers: Set<() => void>
  lookup: "None" | "Queued" | "Running"
  found?: { readonly addresses: ReadonlyArray<IpAddress>; readonly at: number } | undefined
  failure?: { readonly error: NodeJS.ErrnoException; readonly at: number } | undefined
  /** Its last lookup took long. */
  isSlow: boolean
}

/** Names of which anything is known. Those used longest ago are forgotten first. */
const maxNames = 1024
/** Milliseconds for which a failure is remembered, and for which a lookup is new enough for `refresh`. */
const rememberMillis = 1000
/** Milliseconds of a lookup after which its name is slow. */
const slowMillis = 1000

/** The addresses of hosts that need no lookup. */
const withoutLookup = (host: string): Effect.Effect<Resolved, NodeJS.ErrnoException> | undefined => {
  if (host === "" || host === "*" || /^(.+\.)?localhost\.?$/i.test(host)) {
    return Effect.sync(() => ({ addresses: NodeHosts.loopback(), isCached: false }))
  }
  const family = Net.isIP(host)
  if (family === 0) return undefined
  const [, zone] = host.split("%")
  return Effect.suspend(() =>
    zone === undefined || NodeHosts.interfaceIndex(zone) !== undefined
      ? Effect.succeed({ addresses: [{ host, family: family === 6 ? 6 : 4 }], isCached: false })
      : Effect.fail(Object.assign(new Error(`no network interface ${zone}`), { code: "ENODEV" }))
  )
}

/** Runs lookups, each of a name of its own. */
const makeLookups = ({
  concurrency = poolConcurrency(),
  lookup = systemLookup,
  now
}: Options & { readonly now: () => number }) => {
  const queue: Array<Name> = []
  const running = new Map<Name, number>()
  const maxSlow = Math.max(1, concurrency - 1)

  const start = () => {
    while (running.size < concurrency) {
      const slow = [...running].filter(([name, at]) => name.isSlow || now() - at > slowMillis).length
      const index = queue.findIndex(({ isSlow }) => !isSlow || slow < maxSlow)
      const [name] = index < 0 ? [] : queue.splice(index, 1)
      if (name === undefined) return
      run(name)
    }
  }
  const run = (name: Name) => {
    const at = now()
    running.set(name, at)
    name.lookup = "Running"
    lookup(name.text, (error, addresses) => {
      running.delete(name)
      name.lookup = "None"
      name.isSlow = now() - at > slowMillis
      if (error === null) name.found = { addresses, at: now() }
      else if (error.code === "ENOTFOUND") name.found = undefined
      name.failure = error === null ? undefined : { error, at: now() }
      const callers = [...name.callers]
      name.callers.clear()
      for (const caller of callers) caller()
      start()
    })
  }
  return {
    /** Does nothing while there is a lookup of the name. */
    begin: (name: Name) => {
      if (name.lookup !== "None") return
      name.lookup = "Queued"
      queue.push(name)
      start()
    }
  }
}

const systemLookup: Lookup = (name, done) =>
  Dns.lookup(name, { all: true }, (error, found) =>
    done(
      error,
      (found ?? []).map(({ address, family }) => ({ host: address, family: family === 6 ? 6 : 4 }))
    )
  )

/** libuv runs `getaddrinfo` in half of its threads, rounded up. One thread always stays free for files. */
const poolConcurrency = (): number => {
  const threads = Math.max(1, Math.floor(Number(process.env["UV_THREADPOOL_SIZE"])) || 4)
  return Math.max(1, Math.min(threads - 1, Math.floor((threads + 1) / 2)))
}
