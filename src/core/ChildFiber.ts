/**
 * Runs the steps of a long-lived loop in child fibers.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/**
 * Runs the effect in a child fiber. Interrupting this interrupts the child and waits for its finalizers.
 *
 * For loops whose steps have scopes: `Effect.addFinalizer` restores the fiber's refs after each finalizer, and so drops an
 * interruption that arrived meanwhile (effect 3.22). The loop would never end.
 */
export const run = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    // An exit, or Effect would log the failure of this fiber as unhandled.
    Effect.forkDaemon(Effect.exit(Effect.interruptible(self))),
    (fiber) => Effect.flatMap(Fiber.await(fiber), Effect.flatten),
    (fiber) => Fiber.interrupt(fiber)
  )
