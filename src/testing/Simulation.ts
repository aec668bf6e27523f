/**
 * Runs a whole program on one virtual processor, in virtual time: by its seed, what was found once is found again.
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
 * The program would never end: every fiber waits and no timer is left (`Stuck`), or it took more than `maxSteps`
 * (`Busy`). It was interrupted then, so that its finalizers ran.
 */
export class Deadlock extends Schema.TaggedError<Deadlock>()("Deadlock", {
  reason: Schema.Literal("Stuck", "Busy"),
  /** Virtual milliseconds since the start. */
  at: Schema.Number,
  steps: Schema.Number
}) {
  override get message(): string {
    const what = this.reason === "Stuck" ? "every fiber waits and no timer is left" : "no end in sight"
    return `${what} at ${this.at} ms, after ${this.steps} steps`
  }
}

export interface Options {
  /** Equal seeds are equal histories. */
  readonly seed: number
  /** Turns of fibers before the run is given up. Defaults to a million. */
  readonly maxSteps?: number | undefined
  /**
   * Most operations in one turn of a fiber, and a few more; where it ends is drawn by the seed. Fewer show more
   * interleavings and take longer. Defaults to 2048, what a fiber has in life.
   */
  readonly turn?: number | undefined
}

export interface Result<A, E> {
  /** How the program ended. A defect in any fiber is a defect here, also when nobody waited for that fiber. */
  readonly exit: Exit.Exit<A, E | Deadlock>
  /** Virtual milliseconds that passed. */
  readonly elapsed: number
  /** Turns of fibers taken. */
  readonly steps: number
  /** Fibers still alive after the end, waiting for something or for a time: none when everything was scoped. */
  readonly leftover: number
}

/**
 * Runs `effect` to its end, synchronously, under a Clock, Random and Scheduler of its own.
 *
 * Time moves only when no fiber can run, and the next fiber to run is drawn by the seed. The program must take all
 * time from Clock and all chance from Random; a promise or a real timer in it shows as a `Deadlock`.
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
  let operations = leastTurn + draw(turn)

  const scheduler: Scheduler.Scheduler = {
    scheduleTask: (task) => {
      ready.push(task)
    },
    shouldYield: (fiber) => {
      if (fiber.currentOpCount <= operations) return false
      operations = leastTurn + draw(turn)
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

  /** Runs what is ready, in an order drawn by the seed; `true` when nothing is any more. */
  const settle = (limit: number): boolean => {
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
  /** Runs until the program has ended, or says why it never will. */
  const finish = (limit: number): Exit.Exit<A, E | Deadlock> => {
    for (;;) {
      const settled = settle(limit)
      if (exit !== undefined) return exit
      const at = settled ? timers.next() : undefined
      if (at === undefined) return Exit.fail(new Deadlock({ reason: settled ? "Stuck" : "Busy", at: now, steps }))
      now = at
      // Everything due at this instant races for the processor.
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
  settle(steps + maxSteps)
  return { exit: watch.blame(end), ...counts, leftover: watch.alive }
}

// internal

// To yield takes some ten operations too: a fiber with shorter turns does nothing else.
const leastTurn = 16

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

/** Counts the fibers below the main one, and keeps what they died of. */
class Watch extends Supervisor.AbstractSupervisor<void> {
  alive = 0
  died: Cause.Cause<never> = Cause.empty
  override readonly value = Effect.void

  override onStart(): void {
    this.alive++
  }

  override onEnd<A, E>(exit: Exit.Exit<A, E>): void {
    this.alive--
    if (Exit.isFailure(exit)) {
      this.died = Option.match(Cause.keepDefects(exit.cause), {
        onNone: () => this.died,
        onSome: (defects) => Cause.parallel(this.died, defects)
      })
    }
  }

  /** Adds the defects of other fibers to an end that says nothing of one. */
  blame<A, E>(exit: Exit.Exit<A, E>): Exit.Exit<A, E> {
    if (!Cause.isDie(this.died)) return exit
    if (Exit.isSuccess(exit)) return Exit.failCause(this.died)
    return Cause.isDie(exit.cause) ? exit : Exit.failCause(Cause.parallel(exit.cause, this.died))
  }
}
