/**
 * Runs a program on one virtual processor, in virtual time. The seed determines the whole run, so that a failure can be
 * reproduced.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as Supervisor from "effect/Supervisor"
import * as Timers from "./Timers.js"

/**
 * The program would not end: every fiber waits and no timer is left (`Stuck`), or it took more than `maxSteps` (`Busy`).
 * It was then interrupted, so that its finalizers ran.
 */
export class Deadlock extends Schema.TaggedError<Deadlock>()("Deadlock", {
  reason: Schema.Literal("Stuck", "Busy"),
  /** Virtual milliseconds since the start. */
  at: Schema.Number,
  steps: Schema.Number
}) {
  override get message(): string {
    const what = this.reason === "Stuck" ? "every fiber waits and no timer is left" : "the program did not end"
    return `${what} at ${this.at} ms, after ${this.steps} steps`
  }
}

export interface Options {
  /** Equal seeds give equal histories. */
  readonly seed: number
  /** Turns of fibers after which the run is stopped. Defaults to a million. */
  readonly maxSteps?: number | undefined
  /**
   * Operations in one turn of a fiber, at most, and a few more. The seed draws where each turn ends. A lower value shows more
   * interleavings and takes longer. Defaults to 2048, the same as Effect's own scheduler.
   */
  readonly turn?: number | undefined
}

export interface Result<A, E> {
  /** How the program ended. A defect in any fiber is a defect here, even if no fiber waited for it. */
  readonly exit: Exit.Exit<A, E | Deadlock>
  /** Virtual milliseconds that passed. */
  readonly elapsed: number
  /** Turns of fibers taken. */
  readonly steps: number
  /** Fibers that are alive after the end: none when every fiber belonged to a scope. */
  readonly leftover: number
}

/**
 * Runs `effect` to its end, synchronously, with its own Clock, Random and Scheduler.
 *
 * Time advances only when no fiber can run, and the seed draws which fiber runs next. The program must take time from Clock and
 * randomness from Random. A promise or a real timer in it shows as a `Deadlock`.
 */
export const run = <A, E>(effect: Effect.Effect<A, E>, options: Options): Result<A, E> => {
  const draw = makeDraw(options.seed)
  const maxSteps = options.maxSteps ?? 1_000_000
  const turn = options.turn ?? 2048
  const timers = Timers.make()
  const ready: Array<() => void> = []
  const watch = new Watch()
  let now = 0
  let steps = 0
  let operations = minTurn + draw(turn)

  const scheduler: Scheduler.Scheduler = {
    scheduleTask: (task) => {
      ready.push(task)
    },
    shouldYield: (fiber) => {
      if (fiber.currentOpCount <= operations) return false
      operations = minTurn + draw(turn)
      return 0
    }
  }
  const currentNanos = () => BigInt(Math.floor(now * 1e6))
  const clock: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => now,
    unsafeCurrentTimeNanos: currentNanos,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanos: Effect.sync(currentNanos),
    sleep: (duration) =>
      Effect.async<void>((resume) => {
        const timer = timers.add(now + Duration.toMillis(duration), () => resume(Effect.void))
        return Effect.sync(() => timers.remove(timer))
      })
  }

  /** Runs the tasks that are ready, in an order drawn by the seed. Returns whether none is left. */
  const runReady = (limit: number): boolean => {
    while (ready.length > 0 && steps < limit) {
      steps++
      const index = draw(ready.length)
      const task = ready[index]
      const last = ready.pop()
      if (last !== undefined && index < ready.length) ready[index] = last
      task?.()
    }
    return ready.length === 0
  }

  let exit: Exit.Exit<A, E> | undefined
  /** Runs until the program has ended, or returns why it would not end. */
  const finish = (limit: number): Exit.Exit<A, E | Deadlock> => {
    for (;;) {
      const idle = runReady(limit)
      if (exit !== undefined) return exit
      const at = idle ? timers.next() : undefined
      if (at === undefined) return Exit.fail(new Deadlock({ reason: idle ? "Stuck" : "Busy", at: now, steps }))
      now = at
      // Every fiber that is due at this instant competes for the processor.
      while (timers.next() === at) timers.wake()
    }
  }

  const fiber = Effect.runFork(
    effect.pipe(Effect.supervised(watch), Effect.withClock(clock), Effect.withRandom(Random.make(options.seed))),
    { scheduler }
  )
  fiber.addObserver((ended) => {
    exit = ended
  })
  const end = finish(maxSteps)
  const counts = { elapsed: now, steps }
  if (exit === undefined) {
    fiber.unsafeInterruptAsFork(FiberId.none)
    finish(steps + maxSteps)
  }
  runReady(steps + maxSteps)
  return { exit: watch.addDefects(end), ...counts, leftover: watch.alive }
}

// internal

// Yielding itself takes some ten operations: a fiber with shorter turns would do nothing else.
const minTurn = 16

/** mulberry32: a whole number below `bound`. */
const makeDraw = (seed: number): ((bound: number) => number) => {
  let state = seed >>> 0
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * bound)
  }
}

/** Counts the fibers below the main fiber, and collects their defects. */
class Watch extends Supervisor.AbstractSupervisor<void> {
  alive = 0
  defects: Cause.Cause<never> = Cause.empty
  override readonly value = Effect.void

  override onStart(): void {
    this.alive++
  }

  override onEnd<A, E>(exit: Exit.Exit<A, E>): void {
    this.alive--
    if (Exit.isFailure(exit)) {
      this.defects = Option.match(Cause.keepDefects(exit.cause), {
        onNone: () => this.defects,
        onSome: (more) => Cause.parallel(this.defects, more)
      })
    }
  }

  /** Adds the defects of other fibers to an exit without a defect. */
  addDefects<A, E>(exit: Exit.Exit<A, E>): Exit.Exit<A, E> {
    if (!Cause.isDie(this.defects)) return exit
    if (Exit.isSuccess(exit)) return Exit.failCause(this.defects)
    return Cause.isDie(exit.cause) ? exit : Exit.failCause(Cause.parallel(exit.cause, this.defects))
  }
}
