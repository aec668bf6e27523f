/**
 * Reports when a background fiber of a tunnel ends by a defect, such as an accept loop, which no other fiber waits for.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import * as Supervisor from "effect/Supervisor"

/** Watches the fibers that start while `building` is true: those of the tunnel, not those of its visitors. */
export class DefectWatch extends Supervisor.AbstractSupervisor<void> {
  building = true
  private readonly watched = new Set<Fiber.RuntimeFiber<unknown, unknown>>()
  private readonly onDefect: (cause: Cause.Cause<unknown>) => void
  override readonly value = Effect.void

  constructor(onDefect: (cause: Cause.Cause<unknown>) => void) {
    super()
    this.onDefect = onDefect
  }

  override onStart<A, E, R>(
    _context: Context.Context<R>,
    _effect: Effect.Effect<A, E, R>,
    _parent: Option.Option<Fiber.RuntimeFiber<unknown, unknown>>,
    fiber: Fiber.RuntimeFiber<A, E>
  ): void {
    if (this.building) this.watched.add(fiber)
  }

  override onEnd<A, E>(exit: Exit.Exit<A, E>, fiber: Fiber.RuntimeFiber<A, E>): void {
    if (this.watched.delete(fiber) && Exit.isFailure(exit) && Cause.isDie(exit.cause)) this.onDefect(exit.cause)
  }
}
