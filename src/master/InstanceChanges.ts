/**
 * The changes of instances: create, patch, replace, roll back, remove. Each is stored first, then made.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import type { Crypto } from "../transport/Crypto.js"
import * as TunnelUrl from "../url/TunnelUrl.js"
import type { UrlError } from "../url/UrlError.js"
import {
  type Action,
  type Expected,
  Id,
  type Instance,
  type Meta,
  type NoInstance,
  noMeta,
  noTraffic,
  NoVersion,
  type Patch,
  type Patched,
  type PatchPeer,
  SameUrl,
  VersionMismatch
} from "./Instance.js"
import { type InstanceStore, Stored, type StoreError } from "./InstanceStore.js"
import type { Instances } from "./Instances.js"
import * as ManagedInstance from "./ManagedInstance.js"
import type { StoreHealth } from "./StoreHealth.js"

export interface InstanceChanges {
  /** Stores the instance, then starts it. Its status in the result shows whether it runs. */
  readonly create: (given: {
    readonly url: string
    readonly alias?: string | undefined
  }) => Effect.Effect<Instance, StoreError | UrlError>
  readonly patch: (
    id: string,
    patch: Patch,
    expected?: Expected
  ) => Effect.Effect<Patched, NoInstance | StoreError | VersionMismatch>
  /** Sets the URL, as a new version, and restarts the instance. */
  readonly replace: (
    id: string,
    url: string,
    expected?: Expected
  ) => Effect.Effect<Instance, NoInstance | SameUrl | StoreError | UrlError | VersionMismatch>
  /** Sets the URL of an earlier version again, as a new version, and restarts the instance. */
  readonly rollback: (
    id: string,
    version: number,
    expected?: Expected
  ) => Effect.Effect<Instance, NoInstance | NoVersion | SameUrl | StoreError | UrlError | VersionMismatch>
  /** Removes the instance from the store, then stops it. */
  readonly remove: (id: string, expected?: Expected) => Effect.Effect<void, NoInstance | StoreError | VersionMismatch>
}

export interface Options {
  readonly crypto: Crypto["Type"]
  readonly store: InstanceStore["Type"]
  readonly health: StoreHealth
  readonly instances: Instances
  /** Adds the master's defaults to a URL. Fails when the result is invalid. */
  readonly complete: (url: string) => Either.Either<TunnelUrl.Completed, UrlError>
}

export const make = ({ complete, crypto, health, instances, store }: Options): InstanceChanges => {
  /** The ids of instances that are being created: they are not in the list yet. */
  const drawn = new Set<string>()
  /** An id that no instance has, reserved until the scope closes. */
  const newId = Effect.acquireRelease(
    Effect.repeat(
      Effect.map(crypto.randomBytes(4), (bytes) => Id.make(Encoding.encodeHex(bytes))),
      { while: (id) => instances.has(id) || drawn.has(id) }
    ).pipe(Effect.tap((id) => Effect.sync(() => drawn.add(id)))),
    (id) => Effect.sync(() => drawn.delete(id))
  )

  /** Changes the instance if it is of a version that the caller expects: what that is cannot change in between. */
  const change = <A, E>(
    id: string,
    expected: Expected | undefined,
    change: (instance: ManagedInstance.ManagedInstance) => Effect.Effect<A, E>
  ) =>
    instances.change(id, (instance): Effect.Effect<A, E | VersionMismatch> => {
      const tag = `"${instance.stored.version}"`
      return expected?.expects?.(tag) === false
        ? new VersionMismatch({ what: `instance ${id}`, tag })
        : change(instance)
    })

  const setUrl = (instance: ManagedInstance.ManagedInstance, { config, text: url }: TunnelUrl.Completed) =>
    Effect.gen(function* () {
      const { id, stored } = instance
      if (stored.url === url) return yield* new SameUrl({ id })
      const version = stored.version + 1
      const time = yield* Clock.currentTimeMillis
      yield* health.track(store.saveUrl({ id, version, url, time }))
      instance.stored = { ...stored, url, version }
      instance.config = Either.right(config)
      yield* instance.tunnel.restart
      instances.publish("update", instance)
      return yield* ManagedInstance.read(instance)
    })

  /** Runs the action. Returns the reason when it had no effect. */
  const act = ({ id, tunnel }: ManagedInstance.ManagedInstance, action: Action) => {
    switch (action) {
      case "start":
        return Effect.map(tunnel.start, (started) => (started ? Option.none() : Option.some("already running")))
      case "stop":
        return Effect.map(tunnel.stop, (stopped) => (stopped ? Option.none() : Option.some("already stopped")))
      case "restart":
        return Effect.as(tunnel.restart, Option.none<string>())
      case "reset":
        return tunnel.reset.pipe(
          Effect.zipRight(
            Effect.suspend(() => health.track(store.saveTraffic(new Map([[id, tunnel.state().traffic]]))))
          ),
          Effect.as(Option.none<string>())
        )
    }
  }

  return {
    create: ({ alias = "", url }) =>
      Effect.gen(function* () {
        const { text } = yield* complete(url)
        const id = yield* newId
        yield* Effect.annotateCurrentSpan({ id })
        const created = yield* Clock.currentTimeMillis
        const stored = {
          id,
          alias,
          url: text,
          restart: true,
          meta: noMeta,
          traffic: noTraffic,
          version: 1,
          created
        }
        yield* health.track(store.insert(stored))
        const instance = yield* instances.open(stored)
        // Listed once its first start has ended, however it ended: the event `create` has the resulting status.
        const list = Effect.sync(() => {
          instances.add(instance)
          instances.publish("create", instance)
        })
        yield* Effect.ensuring(instance.tunnel.start, list)
        return yield* ManagedInstance.read(instance)
      }).pipe(Effect.scoped, Effect.uninterruptible, Effect.withSpan("Master.create")),
    patch: (id, { action, alias, meta, restart }, expected) =>
      change(id, expected, (instance) =>
        Effect.gen(function* () {
          if (alias !== undefined || restart !== undefined || meta !== undefined) {
            const { stored } = instance
            const fields = {
              alias: alias ?? stored.alias,
              restart: restart ?? stored.restart,
              meta: { peer: patchedPeer(stored.meta.peer, meta?.peer), tags: meta?.tags ?? stored.meta.tags }
            }
            if (!isSame(fields, stored)) {
              const saved = { ...fields, version: stored.version + 1 }
              yield* health.track(store.save(instance.id, saved))
              instance.stored = { ...stored, ...saved }
              instances.publish("update", instance)
            }
          }
          const note = action === undefined ? Option.none<string>() : yield* act(instance, action)
          return { instance: yield* ManagedInstance.read(instance), note }
        })
      ).pipe(Effect.withSpan("Master.patch", { attributes: { id, action } })),
    replace: (id, url, expected) =>
      change(id, expected, (instance) =>
        Effect.flatMap(complete(url), (completed) => setUrl(instance, completed))
      ).pipe(Effect.withSpan("Master.replace", { attributes: { id } })),
    rollback: (id, version, expected) =>
      change(id, expected, (instance) =>
        Effect.gen(function* () {
          const versions = yield* health.trackRead(store.versions(instance.id))
          const found = versions.find((other) => other.version === version)
          if (found === undefined) return yield* new NoVersion({ id, version })
          return yield* setUrl(instance, { text: found.url, config: yield* TunnelUrl.parse(found.url) })
        })
      ).pipe(Effect.withSpan("Master.rollback", { attributes: { id, version } })),
    remove: (id, expected) =>
      change(id, expected, (instance) =>
        Effect.zipRight(health.track(store.remove(instance.id)), instances.remove(instance))
      ).pipe(Effect.withSpan("Master.remove", { attributes: { id } }))
  }
}

// internal

/** Compares in any order of the tags. */
const isSame = Schema.equivalence(
  Schema.typeSchema(Schema.Struct(Struct.pick(Stored.fields, "alias", "meta", "restart")))
)

const patchedPeer = (
  peer: Meta["peer"],
  { alias = peer.alias, sid = peer.sid, type = peer.type }: PatchPeer = {}
): Meta["peer"] => ({ sid, type, alias })
