/**
 * What a loop that lives long runs in fibers of its own.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/**
 * Runs the effect in a child fiber; interrupting this interrupts the child, and waits for its finalizers.
 *
 * For loops whose steps have scopes: `Effect.addFinalizer` puts back a fiber's refs after each finalizer, and with them
 * takes away an interruption that arrived meanwhile (effect 3.22), so that the loop would go on for ever.
 */
export const run = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    // As an exit, or what fails here would be logged as nobody's failure.
    Effect.forkDaemon(Effect.exit(Effect.interruptible(self))),
    (fiber) => Effect.flatMap(Fiber.await(fiber), Effect.flatten),
    (fiber) => Fiber.interrupt(fiber)
  )
