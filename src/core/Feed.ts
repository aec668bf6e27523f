/**
 * Values for any number of listeners, each at its own pace: what `EventBus` and `SignalFeed` are made of.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

export interface Options {
  /** Values kept for a listener that does not keep up, at most. Defaults to `256`. */
  readonly capacity?: number | undefined
}

/** The listener did not keep up, and lost this many values before the next one. */
export interface Lagged {
  readonly _tag: "Lagged"
  readonly lost: number
}

export interface Feed<A> {
  /** Whether there is a listener. Without one, a publisher need not even make its values. */
  readonly isHeard: () => boolean
  /** Gives the value to every listener. Never waits. */
  readonly publish: (value: A) => Effect.Effect<void>
  /**
   * Every value from now on, until the feed's scope closes.
   *
   * A listener that does not keep up loses its oldest values and receives `Lagged` in their place.
   */
  readonly subscribe: (options?: Options) => Effect.Effect<Stream.Stream<A | Lagged>, never, Scope.Scope>
}

/** A feed that ends with the present scope. */
export const make = <A>(): Effect.Effect<Feed<A>, never, Scope.Scope> =>
  Effect.gen(function* () {
    let listeners = 0
    let next = 0
    // A last message ends the streams. A shutdown would drop what listeners have not received yet.
    const pubsub = yield* Effect.acquireRelease(PubSub.sliding<Numbered<A>>(buffered), (pubsub) =>
      pubsub.publish({ number: next, value: undefined })
    )
    const listening = Effect.acquireRelease(
      Effect.sync(() => listeners++),
      () => Effect.sync(() => listeners--)
    )
    return {
      isHeard: () => listeners > 0,
      publish: (value) =>
        Effect.suspend(() => (listeners === 0 ? Effect.void : pubsub.publish({ number: next++, value: [value] }))),
      subscribe: ({ capacity = 256 } = {}) =>
        Effect.gen(function* () {
          yield* listening
          const numbered = yield* Stream.fromPubSub(pubsub, { scoped: true })
          return numbered.pipe(
            Stream.buffer({ capacity, strategy: "sliding" }),
            Stream.mapAccum(next, (expected, { number, value }) => [
              number + 1,
              withGap(value, Math.max(0, number - expected))
            ]),
            Stream.flattenIterables,
            Stream.takeWhile(Predicate.isNotUndefined)
          )
        })
    }
  })

// internal

interface Numbered<A> {
  readonly number: number
  /** `undefined` ends the stream. */
  readonly value: readonly [A] | undefined
}

/** Values between the publisher and the buffers of the listeners, at most. */
const buffered = 1024

const withGap = <A>(value: Numbered<A>["value"], lost: number): ReadonlyArray<A | Lagged | undefined> => {
  const [last] = value ?? []
  return lost === 0 ? [last] : [{ _tag: "Lagged", lost }, last]
}
