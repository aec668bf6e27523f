/**
 * Many tunnels in one process, none of which can touch another, and a memory of them all.
 */
import * as Array from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Crypto } from "../transport/Crypto.js"
import {
  type Event,
  Id,
  type Instance,
  type Meta,
  noMeta,
  noTraffic,
  type PatchPeer,
  type Traffic,
  type Version
} from "./Instance.js"
import * as InstanceLog from "./InstanceLog.js"
import { type Identity, InstanceStore, type Stored, type StoreError } from "./InstanceStore.js"
import * as Journal from "./Journal.js"
import type { Level } from "../core/LogLine.js"
import * as ManagedTunnel from "./ManagedTunnel.js"
import { Settings } from "../transport/Settings.js"
import * as TrafficHistory from "./TrafficHistory.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import type { UrlError } from "../url/UrlError.js"

/** No instance has the id. */
export class NoInstance extends Schema.TaggedError<NoInstance>()("NoInstance", { id: Schema.String }) {
  override get message(): string {
    return `instance ${this.id}: there is none`
  }
}

/** The instance has this very URL. */
export class SameUrl extends Schema.TaggedError<SameUrl>()("SameUrl", { id: Schema.String }) {
  override get message(): string {
    return `url: instance ${this.id} has the same`
  }
}

/** The instance never had a URL of that version. */
export class NoVersion extends Schema.TaggedError<NoVersion>()("NoVersion", {
  id: Schema.String,
  version: Schema.Number
}) {
  override get message(): string {
    return `version=${this.version}: instance ${this.id} has none`
  }
}

export type Action = "start" | "stop" | "restart" | "reset"

/** What may be changed of an instance; what is left out stays. */
export interface Patch {
  readonly alias?: string | undefined
  readonly restart?: boolean | undefined
  readonly meta?: { readonly peer?: PatchPeer | undefined; readonly tags?: Meta["tags"] | undefined } | undefined
  readonly action?: Action | undefined
}

/** What came of it. */
export interface Patched {
  readonly instance: Instance
  /** Why the action did nothing. */
  readonly note: Option.Option<string>
}

export class Master extends Context.Tag("nodepass/Master")<
  Master,
  {
    readonly identity: Effect.Effect<Identity>
    readonly identify: (fields: Partial<Identity>) => Effect.Effect<void, StoreError>
    /** In the order of their creation. */
    readonly list: Effect.Effect<ReadonlyArray<Instance>>
    readonly get: (id: string) => Effect.Effect<Instance, NoInstance>
    /** Keeps it, then starts it; the answer tells whether it runs. */
    readonly create: (given: {
      readonly url: string
      readonly alias?: string | undefined
    }) => Effect.Effect<Instance, StoreError | UrlError>
    readonly patch: (id: string, patch: Patch) => Effect.Effect<Patched, NoInstance | StoreError>
    /** Gives it another URL and restarts it. */
    readonly replace: (id: string, url: string) => Effect.Effect<Instance, NoInstance | SameUrl | StoreError | UrlError>
    /** Forgets it, then stops it. */
    readonly remove: (id: string) => Effect.Effect<void, NoInstance | StoreError>
    /** Newest first. */
    readonly versions: (id: string) => Effect.Effect<ReadonlyArray<Version>, NoInstance | StoreError>
    /** Gives it the URL of that version again, as a new version, and restarts it. */
    readonly rollback: (
      id: string,
      version: number
    ) => Effect.Effect<Instance, NoInstance | NoVersion | SameUrl | StoreError | UrlError>
    readonly logs: (id: string) => Effect.Effect<Journal.Journal<string>, NoInstance>
    readonly traffic: (id: string) => Effect.Effect<TrafficHistory.TrafficHistory, NoInstance>
    readonly events: Journal.Journal<Event>
    /** Why it does not have all tunnels yet that are to start with it; empty when it has. */
    readonly pending: Effect.Effect<ReadonlyArray<string>>
    /** Changes of the store that failed since the last one that did not, as a sentence. */
    readonly trouble: Effect.Effect<Option.Option<string>>
  }
>() {}

export interface Options {
  /** Of instances whose URL has none. Defaults to `info`. */
  readonly log?: Level | undefined
  /** Of servers whose URL has none. Defaults to plain. */
  readonly tls?: TunnelUrl.ServerTls | undefined
}

/**
 * Starts the instances that are to start with the master, a few at a time and in the background.
 *
 * Its end stops them all, visitors being let finish. Fails when the store cannot be read.
 */
export const layer = (options?: Options): Layer.Layer<Master, StoreError, InstanceStore | ManagedTunnel.Environment> =>
  Layer.scoped(Master, make(options ?? {})).pipe(Layer.provide(rememberedStretching))

// internal

/** How many tunnels begin at a time when the master starts. */
const startsAtOnce = 32

interface Entry {
  stored: Stored
  /** What a later version may no longer understand is kept all the same. */
  config: Either.Either<TunnelUrl.TunnelConfig, UrlError>
  readonly tunnel: ManagedTunnel.ManagedTunnel
  readonly scope: Scope.CloseableScope
  readonly log: InstanceLog.InstanceLog
  readonly history: TrafficHistory.TrafficHistory
  /** One change at a time. */
  readonly lock: Effect.Semaphore
  /** Its figures as the last event has them. */
  told: string
}

const make = (options: Options) =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    const crypto = yield* Crypto
    const clock = yield* Effect.clock
    const { reportInterval } = yield* Settings
    const environment = yield* Effect.context<ManagedTunnel.Environment>()
    const entries = new Map<string, Entry>()
    const events = Journal.make<Event>({ limit: 4096, size: { limit: 8_388_608, of: sizeOf } })
    let failed = Option.none<string>()
    const hexDigits = (count: number) => Effect.map(crypto.randomBytes(count / 2), Encoding.encodeHex)

    /** What the store was asked last is what its health is; each change of that is a line. */
    const kept = <A>(self: Effect.Effect<A, StoreError>) =>
      Effect.tapBoth(self, {
        onFailure: ({ message }) =>
          Effect.suspend(() => {
            const known = Option.contains(failed, message)
            failed = Option.some(message)
            return known ? Effect.void : Effect.logError(message)
          }),
        onSuccess: () =>
          Effect.suspend(() => {
            const was = failed
            failed = Option.none()
            return Option.isSome(was) ? Effect.logInfo("the state is kept again") : Effect.void
          })
      })

    let identity = yield* Effect.flatMap(
      store.identity,
      Option.match({
        onSome: Effect.succeed,
        onNone: () =>
          Effect.gen(function* () {
            const made = { mid: yield* hexDigits(16), alias: "", keyHash: "" }
            yield* store.identify(made)
            return made
          })
      })
    )

    const publish = (type: Event["type"], instance: Instance | null, logs = "") =>
      events.append({ type, time: timeOf(clock.unsafeCurrentTimeMillis()), instance, logs })
    const tell = (type: Event["type"], entry: Entry, logs = "") => {
      const instance = view(entry)
      entry.told = figuresOf(instance)
      publish(type, instance, logs)
    }

    const open = (stored: Stored) =>
      Effect.gen(function* () {
        const config = TunnelUrl.parse(stored.url)
        const scope = yield* Scope.fork(masterScope, ExecutionStrategy.sequential)
        const log = InstanceLog.make({
          id: stored.id,
          tell: (line) => {
            if (entries.has(stored.id)) tell("log", entry, line)
          }
        })
        // Once the tunnel has ended: whoever follows its log hears of that.
        yield* Scope.addFinalizer(scope, log.journal.close)
        const tunnel = yield* ManagedTunnel.make({
          config: () => entry.config,
          restarts: () => entry.stored.restart,
          log,
          traffic: stored.traffic,
          changed: () => {
            if (entries.has(stored.id)) tell("update", entry)
          }
        }).pipe(Scope.extend(scope), Effect.provide(environment))
        const lock = yield* Effect.makeSemaphore(1)
        const entry: Entry = { stored, config, tunnel, scope, log, history: TrafficHistory.make(), lock, told: "" }
        entry.told = figuresOf(view(entry))
        return entry
      })

    const saved = new Map<Id, Traffic>()
    const saveTraffic = Effect.suspend(() => {
      const changed = new Map<Id, Traffic>()
      for (const { stored, tunnel } of entries.values()) {
        const { traffic } = tunnel.state()
        if (!isSame(traffic, saved.get(stored.id) ?? noTraffic)) changed.set(stored.id, traffic)
      }
      if (changed.size === 0) return Effect.void
      return Effect.map(kept(store.saveTraffic(changed)), () => {
        for (const [id, traffic] of changed) saved.set(id, traffic)
        for (const id of saved.keys()) if (!entries.has(id)) saved.delete(id)
      })
    })
    // After the tunnels have ended, with what they carried to the last.
    yield* Effect.addFinalizer(() => Effect.ignore(saveTraffic))
    const masterScope = yield* Effect.acquireRelease(
      // Side by side, or the last of hundreds would wait for every visitor of the others.
      Scope.make(ExecutionStrategy.parallel),
      (scope, exit) => Scope.close(scope, exit)
    )
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        Effect.sync(() => publish("shutdown", null)),
        events.close
      )
    )

    for (const stored of yield* store.list) {
      entries.set(stored.id, yield* open(stored))
      saved.set(stored.id, stored.traffic)
    }

    const find = (id: string) =>
      Effect.suspend(() => {
        const entry = entries.get(id)
        return entry === undefined ? Effect.fail(new NoInstance({ id })) : Effect.succeed(entry)
      })
    /** One change of the instance at a time; it may have been removed while this one waited. */
    const changing = <A, E>(
      id: string,
      change: (entry: Entry) => Effect.Effect<A, E>
    ): Effect.Effect<A, E | NoInstance> =>
      Effect.flatMap(find(id), ({ lock }) =>
        lock.withPermits(1)(Effect.uninterruptible(Effect.flatMap(find(id), change)))
      )
    const fresh = (entry: Entry) => Effect.map(entry.tunnel.look, () => view(entry))

    const setUrl = (entry: Entry, url: string) =>
      Effect.gen(function* () {
        const config = TunnelUrl.parse(url)
        yield* config
        if (entry.stored.url === url) return yield* new SameUrl({ id: entry.stored.id })
        const version = entry.stored.version + 1
        const time = yield* Clock.currentTimeMillis
        yield* kept(store.saveUrl({ id: entry.stored.id, version, url, time }))
        entry.stored = { ...entry.stored, url, version }
        entry.config = config
        yield* entry.tunnel.restart
        tell("update", entry)
        return yield* fresh(entry)
      })

    const act = (entry: Entry, action: Action) => {
      switch (action) {
        case "start":
          return Effect.map(entry.tunnel.start, (began) =>
            began ? Option.none() : Option.some("it is running already")
          )
        case "stop":
          return Effect.map(entry.tunnel.stop, (ended) =>
            ended ? Option.none() : Option.some("it is stopped already")
          )
        case "restart":
          return Effect.as(entry.tunnel.restart, Option.none<string>())
        case "reset":
          return entry.tunnel.reset.pipe(
            Effect.zipRight(kept(store.saveTraffic(new Map([[entry.stored.id, entry.tunnel.state().traffic]])))),
            Effect.as(Option.none<string>())
          )
      }
    }

    const look = (entry: Entry) =>
      Effect.gen(function* () {
        const { checkpoint, traffic } = yield* entry.tunnel.look
        const time = yield* Clock.currentTimeMillis
        const { tcps, udps } = Option.getOrElse(checkpoint, () => ({ tcps: 0, udps: 0 }))
        entry.history.add({ time, ...traffic, tcps, udps })
        // Whoever asked for it in between has heard, but the subscribers have not.
        if (entries.has(entry.stored.id) && figuresOf(view(entry)) !== entry.told) tell("update", entry)
      })
    const lookAll = Effect.suspend(() => Effect.forEach([...entries.values()], look, { discard: true }))
    // The store may go, or come back, while nobody changes anything.
    const probe = kept(store.identity)
    yield* Effect.forkScoped(
      Effect.repeat(
        Effect.all([lookAll, Effect.ignore(saveTraffic), Effect.ignore(probe)], { discard: true }),
        Schedule.spaced(reportInterval)
      )
    )

    let starting = [...entries.values()].filter(({ stored }) => stored.restart)
    yield* Effect.forkScoped(
      Effect.forEach(
        starting,
        (entry) =>
          Effect.map(entry.tunnel.start, () => {
            starting = starting.filter((other) => other !== entry)
          }),
        { concurrency: startsAtOnce, discard: true }
      )
    )

    return Master.of({
      identity: Effect.sync(() => identity),
      identify: (fields) =>
        Effect.suspend(() => {
          const next = { ...identity, ...fields }
          return Effect.map(kept(store.identify(next)), () => {
            identity = next
          })
        }),
      list: Effect.suspend(() => Effect.forEach([...entries.values()], fresh)),
      get: (id) => Effect.flatMap(find(id), fresh),
      create: ({ alias = "", url }) =>
        Effect.gen(function* () {
          const whole = yield* complete(url, options)
          let id = Id.make(yield* hexDigits(8))
          while (entries.has(id)) id = Id.make(yield* hexDigits(8))
          const created = yield* Clock.currentTimeMillis
          const stored = { id, alias, url: whole, restart: true, meta: noMeta, traffic: noTraffic, version: 1, created }
          yield* kept(store.insert(stored))
          const entry = yield* open(stored)
          const appear = Effect.sync(() => {
            entries.set(id, entry)
            tell("create", entry)
          })
          yield* Effect.ensuring(entry.tunnel.start, appear)
          return yield* fresh(entry)
        }).pipe(Effect.uninterruptible),
      patch: (id, { action, alias, meta, restart }) =>
        changing(id, (entry) =>
          Effect.gen(function* () {
            if (alias !== undefined || restart !== undefined || meta !== undefined) {
              const fields = {
                alias: alias ?? entry.stored.alias,
                restart: restart ?? entry.stored.restart,
                meta: { peer: patched(entry.stored.meta.peer, meta?.peer), tags: meta?.tags ?? entry.stored.meta.tags }
              }
              yield* kept(store.save(entry.stored.id, fields))
              entry.stored = { ...entry.stored, ...fields }
              tell("update", entry)
            }
            const note = action === undefined ? Option.none<string>() : yield* act(entry, action)
            return { instance: yield* fresh(entry), note }
          })
        ),
      replace: (id, url) =>
        changing(id, (entry) => Effect.flatMap(complete(url, options), (url) => setUrl(entry, url))),
      remove: (id) =>
        changing(id, (entry) =>
          Effect.gen(function* () {
            yield* kept(store.remove(entry.stored.id))
            const instance = view(entry)
            entries.delete(id)
            yield* Scope.close(entry.scope, Exit.void)
            publish("delete", { ...instance, status: "stopped", error: "" })
          })
        ),
      versions: (id) =>
        Effect.flatMap(find(id), ({ stored }) =>
          Effect.map(
            kept(store.versions(stored.id)),
            Array.map(({ time, url, version }) => ({
              version,
              url,
              time: timeOf(time),
              current: version === stored.version
            }))
          )
        ),
      rollback: (id, version) =>
        changing(id, (entry) =>
          Effect.gen(function* () {
            const versions = yield* kept(store.versions(entry.stored.id))
            const found = versions.find((other) => other.version === version)
            return found === undefined ? yield* new NoVersion({ id, version }) : yield* setUrl(entry, found.url)
          })
        ),
      logs: (id) => Effect.map(find(id), ({ log }) => log.journal),
      traffic: (id) => Effect.map(find(id), ({ history }) => history),
      events,
      pending: Effect.sync(() =>
        starting.length === 0 ? [] : [`${starting.length} instances that start with the master are yet to be started`]
      ),
      trouble: Effect.sync(() => failed)
    })
  })

const view = ({ config, stored, tunnel }: Entry): Instance => {
  const { checkpoint, error, status, traffic } = tunnel.state()
  const now = Option.getOrUndefined(checkpoint)
  return {
    id: stored.id,
    alias: stored.alias,
    type: /^server:/i.test(stored.url) ? "server" : "client",
    status,
    url: stored.url,
    config: Either.match(config, {
      onLeft: () => stored.url,
      onRight: (config) => TunnelUrl.format(config, { key: "shown" })
    }),
    restart: stored.restart,
    meta: stored.meta,
    mode: now?.mode ?? Either.match(config, { onLeft: () => 0, onRight: ({ mode }) => modes[mode] }),
    ping: Math.round(
      Option.getOrElse(
        Option.flatMap(checkpoint, ({ ping }) => ping),
        () => 0
      )
    ),
    pool: now?.pool.idle ?? 0,
    tcps: now?.tcps ?? 0,
    udps: now?.udps ?? 0,
    ...traffic,
    error,
    version: stored.version
  }
}

const patched = (peer: Meta["peer"], { alias = peer.alias, sid = peer.sid, type = peer.type }: PatchPeer = {}) => ({
  sid,
  type,
  alias
})

const modes = { auto: 0, receive: 1, send: 2, forward: 1, through: 2 }

const figuresOf = ({ mode, ping, pool, tcprx, tcps, tcptx, udprx, udps, udptx }: Instance): string =>
  [mode, ping, pool, tcps, udps, tcprx, tcptx, udprx, udptx].join()

const isSame = (a: Traffic, b: Traffic): boolean =>
  a.tcprx === b.tcprx && a.tcptx === b.tcptx && a.udprx === b.udprx && a.udptx === b.udptx

const timeOf = (millis: number): string => DateTime.formatIso(DateTime.unsafeMake(millis))

const sizeOf = ({ instance, logs }: Event): number =>
  300 + logs.length + (instance === null ? 0 : instance.url.length + instance.config.length + metaSize(instance.meta))

const metaSize = ({ peer, tags }: Meta): number =>
  Object.entries(tags).reduce((sum, [name, value]) => sum + name.length + value.length, 600 + peer.sid.length)

/** The URL with what the master has for it where it says nothing: `log`, and for servers `tls`, `crt` and `key`. */
const complete = (
  text: string,
  { log = "info", tls = { _tag: "Plain" } }: Options
): Either.Either<string, UrlError> => {
  const given = text.trim()
  const whole = given === "" ? "" : withMissing(given, tls, log)
  return Either.map(TunnelUrl.parse(whole), () => whole)
}

const withMissing = (url: string, tls: TunnelUrl.ServerTls, log: Level): string => {
  const has = (name: string) => new RegExp(`[?&]${name}=`).test(url)
  const isServer = /^server:/i.test(url)
  const add: Array<string> = has("log") ? [] : [`log=${log}`]
  if (isServer && !has("tls")) add.push(`tls=${tls._tag === "Files" ? "2" : tls._tag === "SelfSigned" ? "1" : "0"}`)
  if (isServer && tls._tag === "Files" && (!has("tls") || /[?&]tls=2(&|$)/.test(url))) {
    if (!has("crt")) add.push(`crt=${encoded(tls.crt)}`)
    if (!has("key")) add.push(`key=${encoded(tls.key)}`)
  }
  const query = add.join("&")
  return query === "" ? url : `${url}${url.includes("?") ? (/[?&]$/.test(url) ? "" : "&") : "?"}${query}`
}

const encoded = (path: string): string => path.replace(/[\s%&#+]/g, (char) => encodeURIComponent(char))

/** Stretching is slow on purpose, and many instances of one master have the same key. */
const rememberedStretching = Layer.effect(
  Crypto,
  Effect.map(Crypto, (crypto) => {
    const known = new Map<string, Effect.Effect<Uint8Array>>()
    return Crypto.of({
      ...crypto,
      stretch: (secret, salt) =>
        Effect.suspend(() => {
          const name = Encoding.encodeHex(crypto.hmac(salt, secret))
          const remembered = known.get(name)
          if (remembered !== undefined) return remembered
          if (known.size >= 1024) known.clear()
          return Effect.flatten(
            Effect.tap(Effect.cached(Effect.uninterruptible(crypto.stretch(secret, salt))), (stretched) =>
              Effect.sync(() => known.set(name, stretched))
            )
          )
        })
    })
  })
)
