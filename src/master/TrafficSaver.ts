/**
 * Saves the traffic of instances to the store.
 */
import * as Effect from "effect/Effect"
import type { Id, Traffic } from "./Instance.js"
import type { InstanceStore, StoreError } from "./InstanceStore.js"
import type { ManagedInstance } from "./ManagedInstance.js"
import type { StoreHealth } from "./StoreHealth.js"

export interface TrafficSaver {
  /** Saves, in one transaction, the traffic of those instances whose traffic the store does not have yet. */
  readonly save: (instances: ReadonlyArray<ManagedInstance>) => Effect.Effect<void, StoreError>
}

export const make = (store: InstanceStore["Type"], health: StoreHealth): TrafficSaver => ({
  save: (instances) =>
    Effect.suspend(() => {
      const changed = new Map<Id, Traffic>()
      for (const { id, savedTraffic, tunnel } of instances) {
        const { traffic } = tunnel.state()
        if (!isSame(traffic, savedTraffic)) changed.set(id, traffic)
      }
      if (changed.size === 0) return Effect.void
      return Effect.map(health.trackMinor(store.saveTraffic(changed)), () => {
        for (const instance of instances) instance.savedTraffic = changed.get(instance.id) ?? instance.savedTraffic
      })
    })
})

// internal

const isSame = (a: Traffic, b: Traffic): boolean =>
  a.tcprx === b.tcprx && a.tcptx === b.tcptx && a.udprx === b.udprx && a.udptx === b.udptx
