/**
 * The lookups of a resolver: which names may block a thread now.
 *
 * `getaddrinfo` blocks a thread of libuv's pool until it returns, and libuv uses at most half of the threads for it. A name
 * whose name servers do not answer blocks one for half a minute. So only one lookup at a time may hang. Other names are first
 * looked up with c-ares, which needs no thread; an answer shows that `getaddrinfo` will not hang. The addresses of c-ares are
 * not used: it does not read the hosts file and the other sources of `nsswitch.conf`.
 */
import * as Dns from "node:dns"
import process from "node:process"
import type { IpAddress } from "./NodeHosts.js"

/** A name, and what its lookups have shown. */
export interface Name {
  readonly text: string
  /** `Answers` and `Silent`: what c-ares has found while the name waits for its lookup. */
  lookup: "None" | "Queued" | "Probing" | "Answers" | "Silent" | "Running"
  /** Its last lookup took less than a second. */
  isQuick: boolean
}

export interface Options {
  /** Resolves a name. Defaults to `getaddrinfo`. */
  readonly lookup?: Lookup | undefined
  /** Finds out whether the name servers answer. Defaults to c-ares. */
  readonly probe?: Probe | undefined
  /** Lookups at the same time. Defaults to what libuv's pool has threads for, at least one less than it has. */
  readonly concurrency?: number | undefined
  /** The milliseconds of a monotonic clock. */
  readonly now?: (() => number) | undefined
}

export type Lookup = (
  name: string,
  done: (error: NodeJS.ErrnoException | null, addresses: ReadonlyArray<IpAddress>) => void
) => void

export type Probe = (name: string, done: (answers: boolean) => void) => void

export interface Lookups<N extends Name> {
  /** Looks the name up when a thread may be blocked. Does nothing while there is a lookup of the name. */
  readonly begin: (name: N) => void
}

/** `ended` receives the result of each lookup, before the next one starts. */
export const make = <N extends Name>(
  {
    concurrency = poolConcurrency(),
    lookup = systemLookup,
    now = () => performance.now(),
    probe = makeProbe()
  }: Options,
  ended: (name: N, error: NodeJS.ErrnoException | null, addresses: ReadonlyArray<IpAddress>) => void
): Lookups<N> => {
  /** The names that wait, the oldest first. */
  const queue: Array<N> = []
  const running = new Map<N, { readonly at: number; readonly isProved: boolean }>()

  const isLate = (at: number) => now() - at > slowMillis
  const start = () => {
    while (running.size < concurrency) {
      const lookups = [...running.values()]
      const isOneLate = lookups.some(({ at }) => isLate(at))
      const mayOneHang = isOneLate || lookups.some(({ isProved }) => !isProved)
      const isProved = ({ isQuick, lookup }: N) => lookup === "Answers" || (isQuick && !isOneLate)
      const index = mayOneHang ? queue.findIndex(isProved) : 0
      const name = queue[index]
      if (name === undefined) break
      queue.splice(index, 1)
      run(name, isProved(name))
    }
    if (running.size < concurrency) for (const name of queue) if (name.lookup === "Queued") ask(name)
  }
  const run = (name: N, isProved: boolean) => {
    const at = now()
    running.set(name, { at, isProved })
    name.lookup = "Running"
    lookup(name.text, (error, addresses) => {
      running.delete(name)
      name.lookup = "None"
      name.isQuick = !isLate(at)
      ended(name, error, addresses)
      start()
    })
  }
  const ask = (name: N) => {
    name.lookup = "Probing"
    probe(name.text, (answers) => {
      // Its turn may have come meanwhile.
      if (name.lookup !== "Probing") return
      name.lookup = answers ? "Answers" : "Silent"
      if (answers) start()
    })
  }
  return {
    begin: (name) => {
      if (name.lookup !== "None") return
      name.lookup = "Queued"
      queue.push(name)
      start()
    }
  }
}

/** Queries name servers for both kinds of addresses. `servers` defaults to those of the system. */
export const makeProbe =
  (options?: { readonly servers?: ReadonlyArray<string> | undefined; readonly timeoutMillis?: number }): Probe =>
  (name, done) => {
    const resolver = new Dns.Resolver({ timeout: options?.timeoutMillis ?? 1000, tries: 2 })
    if (options?.servers !== undefined) resolver.setServers(options.servers)
    let isSilent = false
    let left = 2
    const answered = (error: NodeJS.ErrnoException | null) => {
      if (error?.code === Dns.TIMEOUT) isSilent = true
      if (--left === 0) done(!isSilent)
    }
    resolver.resolve4(name, answered)
    resolver.resolve6(name, answered)
  }

// internal

/** Milliseconds after which a lookup counts as hung. */
const slowMillis = 1000

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
