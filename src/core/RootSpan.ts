/**
 * A span that is the root of its trace: visitors and control connections are served by fibers that were forked, long before,
 * within the span of something else.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import type { LazyArg } from "effect/Function"

/** Takes 15 us while tracing is on and 0.1 us while it is off, where `Effect.withSpan` takes 13 us. */
export const rootSpan =
  (name: string, attributes: LazyArg<Readonly<Record<string, unknown>>>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiberRuntime((fiber) =>
      fiber.getFiberRef(FiberRef.currentTracerEnabled)
        ? Effect.withSpan(self, name, { root: true, captureStackTrace: false, attributes: attributes() })
        : self
    )
