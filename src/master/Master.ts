/**
 * Many tunnels in one process: each is an instance, kept in a store, supervised, and independent of the others.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Level } from "../core/LogLine.js"
import { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import type { ServerTls } from "../url/ServerTls.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import {
  type Event,
  type Expected,
  formatTime,
  type Instance,
  type NoInstance,
  type Version,
  type VersionMismatch
} from "./Instance.js"
import * as ConcealedCertificates from "./ConcealedCertificates.js"
import * as InstanceChanges from "./InstanceChanges.js"
import * as Instances from "./Instances.js"
import { type Identity, InstanceStore, type StoreError } from "./InstanceStore.js"
import type * as Journal from "./Journal.js"
import * as ManagedInstance from "./ManagedInstance.js"
import type * as ManagedTunnel from "./ManagedTunnel.js"
import * as MasterEvents from "./MasterEvents.js"
import * as MasterIdentity from "./MasterIdentity.js"
import * as StoreHealth from "./StoreHealth.js"
import * as StretchCache from "./StretchCache.js"
import type { TrafficHistory } from "./TrafficHistory.js"
import * as TrafficSaver from "./TrafficSaver.js"

export class Master extends Context.Tag("nodepass/Master")<
  Master,
  InstanceChanges.InstanceChanges & {
    readonly identity: Effect.Effect<Identity>
    /** See `MasterIdentity.update`. */
    readonly identify: MasterIdentity.MasterIdentity["update"]
    /** Sets the master's alias. The entity tag is that of the present alias. */
    readonly rename: (alias: string, expected?: Expected) => Effect.Effect<void, StoreError | VersionMismatch>
    /** Completes when the API key is replaced the next time: by this process, or in the store by another one. */
    readonly keyReplaced: Effect.Effect<void>
    /** In the order of their creation. */
    readonly list: Effect.Effect<ReadonlyArray<Instance>>
    readonly get: (id: string) => Effect.Effect<Instance, NoInstance>
    /** Newest first. */
    readonly versions: (id: string) => Effect.Effect<ReadonlyArray<Version>, NoInstance | StoreError>
    readonly logs: (id: string) => Effect.Effect<Journal.Journal<string>, NoInstance>
    readonly traffic: (id: string) => Effect.Effect<TrafficHistory, NoInstance>
    readonly events: Journal.Journal<Event>
    /** What still has to start, and the instances in error, as sentences; empty when all that should run does. */
    readonly problems: Effect.Effect<ReadonlyArray<string>>
    /** Why the store does not work; `None` when it does. After a failed change, only another change shows that it does. */
    readonly storeProblem: Effect.Effect<Option.Option<string>>
  }
>() {}

export interface Options {
  /** Log level of instances whose URL has none. Defaults to `info`. */
  readonly log?: Level | undefined
  /** TLS of servers whose URL has no `tls`. Defaults to plain. */
  readonly tls?: ServerTls | undefined
}

/**
 * Starts the instances that have `restart`, a few at a time and in the background.
 *
 * The end of the scope stops all instances; visitors may finish within the shutdown timeout. Fails when the store cannot
 * be read.
 */
export const layer = (options?: Options): Layer.Layer<Master, StoreError, InstanceStore | ManagedTunnel.Environment> =>
  Layer.scoped(Master, make(options ?? {})).pipe(Layer.provide([StretchCache.layer, ConcealedCertificates.layer]))

// internal

/** Tunnels that start at the same time when the master starts. */
const maxConcurrentStarts = 32
/** Instances in error that /health names. */
const maxNamed = 20

const make = (options: Options) =>
  Effect.gen(function* () {
    const store = yield* InstanceStore
    const crypto = yield* Crypto
    const health = StoreHealth.make()
    const identity = yield* MasterIdentity.make(health)
    const traffic = TrafficSaver.make(store, health)
    const events = MasterEvents.make(yield* Effect.clock)
    const instances = yield* Instances.make({ events, traffic })
    // Runs before the instances stop: the last event announces the shutdown.
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        Effect.sync(() => events.publish("shutdown", null)),
        events.journal.close
      )
    )
    for (const stored of yield* store.list) instances.add(yield* instances.open(stored))
    yield* startReports({ health, identity, instances, store, traffic })
    const pending = yield* startInstances(instances.list().filter(({ stored }) => stored.restart))
    const changes = InstanceChanges.make({
      crypto,
      health,
      instances,
      store,
      complete: (url) => TunnelUrl.complete(url, { log: options.log ?? "info", tls: options.tls ?? { mode: "plain" } })
    })

    return Master.of({
      ...changes,
      identity: identity.get,
      identify: identity.update,
      rename: identity.rename,
      keyReplaced: identity.keyReplaced,
      list: Effect.suspend(() => Effect.forEach(instances.list(), ManagedInstance.read)),
      get: (id) => Effect.flatMap(instances.find(id), ManagedInstance.read),
      versions: (id) =>
        Effect.flatMap(instances.find(id), ({ stored }) =>
          Effect.map(health.trackRead(store.versions(stored.id)), (versions) =>
            versions.map(({ time, url, version }, at) => ({ version, url, time: formatTime(time), current: at === 0 }))
          )
        ),
      logs: (id) => Effect.map(instances.find(id), ({ log }) => log.journal),
      traffic: (id) => Effect.map(instances.find(id), ({ history }) => history),
      events: events.journal,
      problems: Effect.map(pending, (count) => [
        ...(count === 0 ? [] : [`${count} instances are still starting`]),
        ...failuresOf(instances.list())
      ]),
      storeProblem: health.problem
    })
  })

/** Instances in error, which should run. The first are named with a short reason, the others counted. */
const failuresOf = (instances: ReadonlyArray<ManagedInstance.ManagedInstance>): ReadonlyArray<string> => {
  const failed = instances.filter(({ tunnel }) => tunnel.state().status === "error")
  const named = failed.slice(0, maxNamed).map(({ id, stored: { alias }, tunnel }) => {
    const name = alias === "" ? id : `${id} (${alias})`
    return `instance ${name} is in error: ${tunnel.state().error}`
  })
  return failed.length > maxNamed ? [...named, `${failed.length - maxNamed} more instances are in error`] : named
}

/** Starts the instances in the background. Returns how many have not started yet. */
const startInstances = (
  instances: ReadonlyArray<ManagedInstance.ManagedInstance>
): Effect.Effect<Effect.Effect<number>, never, Scope.Scope> =>
  Effect.gen(function* () {
    let pending = instances.length
    for (const { tunnel } of instances) tunnel.announce()
    yield* Effect.forkScoped(
      Effect.forEach(instances, ({ tunnel }) => Effect.map(tunnel.start, () => pending--), {
        concurrency: maxConcurrentStarts,
        discard: true
      })
    )
    return Effect.sync(() => pending)
  })

interface ReportOptions {
  readonly health: StoreHealth.StoreHealth
  readonly identity: MasterIdentity.MasterIdentity
  readonly instances: Instances.Instances
  readonly store: InstanceStore["Type"]
  readonly traffic: TrafficSaver.TrafficSaver
}

/** In each report interval: reads and publishes the statistics of all instances, saves their traffic, reads the identity. */
const startReports = ({ health, identity, instances, store, traffic }: ReportOptions) =>
  Effect.gen(function* () {
    const { reportInterval } = yield* Settings
    const report = (instance: ManagedInstance.ManagedInstance) =>
      Effect.gen(function* () {
        const { checkpoint, traffic } = yield* instance.tunnel.refresh
        const time = yield* Clock.currentTimeMillis
        const { tcps, udps } = Option.getOrElse(checkpoint, () => ({ tcps: 0, udps: 0 }))
        instance.history.add({ time, ...traffic, tcps, udps })
        // Compared with the last event, not the last reading: other callers read too, without publishing.
        const current = ManagedInstance.statistics(ManagedInstance.toInstance(instance))
        if (current !== instance.lastPublished) instances.publish("update", instance)
      })
    const reportAll = Effect.suspend(() => Effect.forEach(instances.list(), report, { discard: true }))
    const saveTraffic = Effect.suspend(() => traffic.save(instances.list()))
    // These two show that the store has failed or recovered while no change uses it.
    const read = Effect.ignore(identity.refresh)
    const probe = health.probe(store.probe)
    yield* Effect.forkScoped(
      Effect.repeat(
        Effect.all([reportAll, Effect.ignore(saveTraffic), read, probe], { discard: true }),
        Schedule.spaced(reportInterval)
      )
    )
  })
