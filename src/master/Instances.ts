/**
 * The instances of the master, by id: opened, found, changed one at a time, removed.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { type Event, NoInstance } from "./Instance.js"
import type { Stored } from "./InstanceStore.js"
import * as ManagedInstance from "./ManagedInstance.js"
import type * as ManagedTunnel from "./ManagedTunnel.js"
import type { MasterEvents } from "./MasterEvents.js"
import type { TrafficSaver } from "./TrafficSaver.js"

export interface Instances {
  /** In the order of their creation. */
  readonly list: () => ReadonlyArray<ManagedInstance.ManagedInstance>
  readonly has: (id: string) => boolean
  readonly find: (id: string) => Effect.Effect<ManagedInstance.ManagedInstance, NoInstance>
  /** Makes an instance, stopped. It is not in the list, and publishes no events, until `add`. */
  readonly open: (stored: Stored) => Effect.Effect<ManagedInstance.ManagedInstance>
  readonly add: (instance: ManagedInstance.ManagedInstance) => void
  /** Takes the instance off the list, then stops it. */
  readonly remove: (instance: ManagedInstance.ManagedInstance) => Effect.Effect<void>
  /** Runs the change, uninterruptibly, after earlier changes of the same instance have ended. */
  readonly change: <A, E>(
    id: string,
    change: (instance: ManagedInstance.ManagedInstance) => Effect.Effect<A, E>
  ) => Effect.Effect<A, E | NoInstance>
  /** Publishes an event of an instance that is in the list. */
  readonly publish: (type: Event["type"], instance: ManagedInstance.ManagedInstance, logs?: string) => void
}

export interface Options {
  readonly events: MasterEvents
  readonly traffic: TrafficSaver
}

/**
 * No instances yet. The end of the scope stops all of them, then saves their traffic.
 *
 * They stop in parallel: in sequence, the last of hundreds would wait for the visitors of all others.
 */
export const make = ({
  events,
  traffic
}: Options): Effect.Effect<Instances, never, ManagedTunnel.Environment | Scope.Scope> =>
  Effect.gen(function* () {
    const environment = yield* Effect.context<ManagedTunnel.Environment>()
    const instances = new Map<string, ManagedInstance.ManagedInstance>()
    const list = () => [...instances.values()]
    const scope = yield* Effect.acquireRelease(Scope.make(ExecutionStrategy.parallel), (scope, exit) =>
      Effect.zipRight(Scope.close(scope, exit), Effect.ignore(Effect.suspend(() => traffic.save(list()))))
    )

    const publish: Instances["publish"] = (type, instance, logs) => {
      if (!instances.has(instance.id)) return
      const shown = ManagedInstance.toInstance(instance)
      instance.lastPublished = ManagedInstance.statistics(shown)
      events.publish(type, shown, logs)
    }
    const find = (id: string) =>
      Effect.suspend(() => {
        const instance = instances.get(id)
        return instance === undefined ? Effect.fail(new NoInstance({ id })) : Effect.succeed(instance)
      })

    return {
      list,
      has: (id) => instances.has(id),
      find,
      open: (stored) =>
        Effect.gen(function* () {
          const instance: ManagedInstance.ManagedInstance = yield* ManagedInstance.make({
            stored,
            onLine: (line) => publish("log", instance, line),
            onChange: () => publish("update", instance)
          })
          return instance
        }).pipe(
          Scope.extend(scope),
          // Replaces the caller's context: an instance must not keep the API request that creates it.
          Effect.mapInputContext((_: Context.Context<never>) => environment)
        ),
      add: (instance) => {
        instances.set(instance.id, instance)
      },
      remove: (instance) =>
        Effect.suspend(() => {
          const shown = ManagedInstance.toInstance(instance)
          instances.delete(instance.id)
          return Effect.map(Scope.close(instance.scope, Exit.void), () =>
            events.publish("delete", { ...shown, status: "stopped", error: "", serving: false, reason: "stopped" })
          )
        }),
      change: (id, change) =>
        Effect.flatMap(find(id), ({ lock }) =>
          // Found again after waiting: an earlier change may have removed it.
          lock.withPermits(1)(Effect.uninterruptible(Effect.flatMap(find(id), change)))
        ),
      publish
    }
  })
