/**
 * The events of a tunnel: its modules publish them, and any number of listeners receive them, each at its own pace.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { LazyArg } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { TunnelEvent } from "./TunnelEvent.js"

export interface Options {
  /** Events kept for a listener that does not keep up, at most. Defaults to `256`. */
  readonly capacity?: number | undefined
}

export class EventBus extends Context.Tag("nodepass/EventBus")<
  EventBus,
  {
    /** Publishes the event to every listener; it is made only when there is one. Never waits. */
    readonly publish: (event: LazyArg<TunnelEvent>) => Effect.Effect<void>
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
  subscribe: () => Effect.succeed(Stream.empty)
})

export const layer: Layer.Layer<EventBus> = Layer.scoped(
  EventBus,
  Effect.gen(function* () {
    let listeners = 0
    let next = 0
    // A last message ends the streams. A shutdown would drop what listeners have not received yet.
    const pubsub = yield* Effect.acquireRelease(PubSub.sliding<Numbered>(bufferedEvents), (pubsub) =>
      pubsub.publish({ number: next, event: undefined })
    )
    const listening = Effect.acquireRelease(
      Effect.sync(() => listeners++),
      () => Effect.sync(() => listeners--)
    )
    return {
      publish: (event) =>
        Effect.suspend(() => (listeners === 0 ? Effect.void : pubsub.publish({ number: next++, event: event() }))),
      subscribe: ({ capacity = 256 } = {}) =>
        Effect.gen(function* () {
          yield* listening
          const numbered = yield* Stream.fromPubSub(pubsub, { scoped: true })
          return numbered.pipe(
            Stream.buffer({ capacity, strategy: "sliding" }),
            Stream.mapAccum(next, (expected, { event, number }) => [
              number + 1,
              withGap(event, Math.max(0, number - expected))
            ]),
            Stream.flattenIterables,
            Stream.takeWhile(Predicate.isNotUndefined)
          )
        })
    }
  })
)

// internal

interface Numbered {
  readonly number: number
  /** `undefined` ends the stream. */
  readonly event: TunnelEvent | undefined
}

/** Events between the publisher and the buffers of the listeners, at most. */
const bufferedEvents = 1024

const withGap = (event: Numbered["event"], lost: number): ReadonlyArray<Numbered["event"]> =>
  lost === 0 ? [event] : [{ _tag: "Lagged", lost }, event]
