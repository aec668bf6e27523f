/**
 * One instance of the master: what the store has of it, its tunnel, its log and its traffic history.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Scope from "effect/Scope"
import * as TunnelMetrics from "../tunnel/TunnelMetrics.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import type { UrlError } from "../url/UrlError.js"
import type { Id, Instance, Traffic } from "./Instance.js"
import * as InstanceLog from "./InstanceLog.js"
import type { Stored } from "./InstanceStore.js"
import * as ManagedTunnel from "./ManagedTunnel.js"
import * as TrafficHistory from "./TrafficHistory.js"

export interface ManagedInstance {
  readonly id: Id
  stored: Stored
  /** Parsed from `stored.url`. A URL that this version cannot parse stays stored: a later version may parse it. */
  config: Either.Either<TunnelUrl.TunnelConfig, UrlError>
  readonly tunnel: ManagedTunnel.ManagedTunnel
  readonly log: InstanceLog.InstanceLog
  readonly history: TrafficHistory.TrafficHistory
  readonly metrics: TunnelMetrics.TunnelMetrics
  /** Closing it stops the tunnel, then closes the log and removes the metrics. */
  readonly scope: Scope.CloseableScope
  /** Makes changes of this instance run one after the other. */
  readonly lock: Effect.Semaphore
  /** The traffic that the store has. */
  savedTraffic: Traffic
  /** `statistics` as the last published event has them. */
  lastPublished: string
}

export interface Options {
  readonly stored: Stored
  /** Called for each line that the instance logs. */
  readonly onLine: (line: string) => void
  /** Called after each change of the status, and after a reset of the traffic. */
  readonly onChange: () => void
}

/** The instance, stopped. Its scope is a child of the caller's scope. */
export const make = ({
  onChange,
  onLine,
  stored
}: Options): Effect.Effect<ManagedInstance, never, ManagedTunnel.Environment | Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    const log = InstanceLog.make({ id: stored.id, onLine })
    const metrics = TunnelMetrics.make(labels(stored))
    // Registered first, so that they run after the tunnel has stopped.
    yield* Scope.addFinalizer(scope, Effect.sync(metrics.remove))
    yield* Scope.addFinalizer(scope, log.journal.close)
    const tunnel = yield* ManagedTunnel.make({
      id: stored.id,
      config: () => instance.config,
      shouldRestart: () => instance.stored.restart,
      log,
      traffic: stored.traffic,
      onChange
    }).pipe(Scope.extend(scope), Effect.provideService(TunnelMetrics.Current, Option.some(metrics)))
    const instance: ManagedInstance = {
      id: stored.id,
      stored,
      config: TunnelUrl.parse(stored.url),
      tunnel,
      log,
      history: TrafficHistory.make(),
      metrics,
      scope,
      lock: yield* Effect.makeSemaphore(1),
      savedTraffic: stored.traffic,
      lastPublished: ""
    }
    instance.lastPublished = statistics(toInstance(instance))
    return instance
  })

/** The instance as the API shows it, with statistics read now. */
export const read = (managed: ManagedInstance): Effect.Effect<Instance> =>
  Effect.map(managed.tunnel.refresh, () => {
    managed.metrics.relabel(labels(managed.stored))
    return toInstance(managed)
  })

/** The instance as the API shows it, with the statistics read last. */
export const toInstance = ({ config, stored, tunnel }: ManagedInstance): Instance => {
  const { checkpoint, error, isStarting, status, traffic } = tunnel.state()
  const now = Option.getOrUndefined(checkpoint)
  return {
    id: stored.id,
    alias: stored.alias,
    type: typeOf(stored),
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
    serving: now?.status === "serving",
    reason:
      now?.reason ?? (status === "error" ? error : isStarting ? "starting" : status === "stopped" ? "stopped" : ""),
    refused: Record.filter(now?.refused ?? {}, (count) => count > 0),
    version: stored.version
  }
}

/** What changes while the instance runs, as one text to compare. */
export const statistics = (instance: Instance): string => {
  const { mode, ping, pool, reason, refused, serving, tcprx, tcps, tcptx, udprx, udps, udptx } = instance
  return JSON.stringify([mode, ping, pool, tcps, udps, tcprx, tcptx, udprx, udptx, serving, reason, refused])
}

// internal

const typeOf = ({ url }: Stored): "server" | "client" => (TunnelUrl.hasServerScheme(url) ? "server" : "client")

const labels = (stored: Stored) => ({ id: stored.id, alias: stored.alias, type: typeOf(stored) })

const modes = { auto: 0, receive: 1, send: 2, forward: 1, through: 2 }
