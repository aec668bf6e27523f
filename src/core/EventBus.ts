/**
 * The events of a tunnel: its modules publish them, and any number of listeners receive them, each at its own pace.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Feed from "./Feed.js"
import type { TunnelEvent } from "./TunnelEvent.js"

export type Options = Feed.Options

export class EventBus extends Context.Tag("nodepass/EventBus")<
  EventBus,
  {
    /** Publishes the event to every listener; it is made only when there is one. Never waits. */
    readonly publish: (event: LazyArg<TunnelEvent>) => Effect.Effect<void>
    /** Whether there is a listener. Without one `publish` does nothing. */
    readonly hasListeners: () => boolean
    /**
     * Every event from now on, until the layer's scope closes.
     *
     * A listener that does not keep up loses its oldest events and receives `Lagged` in their place.
     */
    readonly subscribe: (options?: Options) => Effect.Effect<Stream.Stream<TunnelEvent>, never, Scope.Scope>
  }
>() {}

/** Drops every event. For tests and hosts that do not listen. */
export const layerNoop: Layer.Layer<EventBus> = Layer.succeed(EventBus, {
  publish: () => Effect.void,
  hasListeners: () => false,
  subscribe: () => Effect.succeed(Stream.empty)
})

export const layer: Layer.Layer<EventBus> = Layer.scoped(
  EventBus,
  Effect.map(Feed.make<TunnelEvent>(), ({ isHeard, publish, subscribe }) => ({
    publish: (event) => Effect.suspend(() => (isHeard() ? publish(event()) : Effect.void)),
    hasListeners: isHeard,
    subscribe
  }))
)
