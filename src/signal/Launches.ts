/**
 * Launches on their way into the outbox. They wait, in order of arrival, while the peer is away and while the outbox is full,
 * and the caller can react to one that is given up.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Refusals } from "../core/Refusals.js"
import { withoutStack } from "../core/WithoutStack.js"
import type * as Signal from "../wire/Signal.js"
import type { SignalBusClosed } from "./ControlConnection.js"
import type { Outbox, PendingSignal } from "./Outbox.js"

/** A launch was given up: the peer did not acknowledge it. Its pool connection is of no use any more. */
export class LaunchRefused extends withoutStack(
  Schema.TaggedError<LaunchRefused>()("LaunchRefused", { reason: Schema.Literal("Late", "Over", "Restarted") })
) {
  override get message(): string {
    switch (this.reason) {
      case "Late":
        return "the other side did not acknowledge the launch in time"
      case "Over":
        return "the session ended before the other side acknowledged the launch"
      case "Restarted":
        return "the other side's process ended before it acknowledged the launch"
    }
  }
}

/** A launch in the outbox. */
export interface LaunchHandle {
  /** Completes if the launch is given up, and only then. */
  readonly refused: Effect.Effect<LaunchRefused>
  /**
   * Runs `effect` if the launch is given up.
   *
   * The bus runs it, so that no fiber has to wait for `refused`: one costs each launch 40 to 60 µs more, of 165 µs.
   */
  readonly whenRefused: (effect: Effect.Effect<void>) => Effect.Effect<void>
}

export interface Launches {
  /** See `SignalBus.launch`. */
  readonly launch: (signal: Signal.Launch) => Effect.Effect<LaunchHandle, SignalBusClosed, Scope.Scope>
  /** Moves launches that wait into the outbox, while the peer is there and the outbox has room. */
  readonly admit: () => void
  /** Reports the launches that the outbox has given up: to their callers, in the log and in the counts. */
  readonly report: Effect.Effect<void>
  /** Gives up the launches that wait: their pool connections have ended with the peer's process. */
  readonly dropConnections: () => void
  /** Fails the launches that wait, and every later one. */
  readonly close: (error: SignalBusClosed) => void
}

export interface Options {
  readonly outbox: Outbox
  readonly isAttached: () => boolean
  /** Milliseconds in the outbox after which a launch is given up. */
  readonly timeout: number
  /** Milliseconds on a steady clock. */
  readonly now: () => number
}

export const make = ({ isAttached, now, outbox, timeout }: Options): Effect.Effect<Launches, never, Refusals> =>
  Effect.map(Refusals, (refusals) => {
    // In order of arrival, which Effect's Semaphore does not keep: one that arrives may pass those it has just woken.
    const waiting = new Map<PendingLaunch, Deferred.Deferred<void, SignalBusClosed>>()
    const givenUp: Array<readonly [PendingLaunch, LaunchRefused]> = []
    let closed: SignalBusClosed | undefined

    const hasRoom = () => isAttached() && outbox.hasRoom()
    const enter = (launch: PendingLaunch) => {
      launch.pending = outbox.launch(launch.signal, {
        due: now() + timeout,
        giveUp: (reason) => givenUp.push([launch, new LaunchRefused({ reason })])
      })
    }
    const wait = (launch: PendingLaunch) => {
      const admitted = Deferred.unsafeMake<void, SignalBusClosed>(FiberId.none)
      waiting.set(launch, admitted)
      return Effect.onInterrupt(Deferred.await(admitted), () => Effect.sync(() => waiting.delete(launch)))
    }

    return {
      launch: (signal) =>
        Effect.flatMap(Effect.scope, (scope) => {
          const launch = new PendingLaunch(signal)
          const withdraw = Effect.sync(() => launch.pending && outbox.withdraw(launch.pending))
          const begin = Effect.suspend(() => {
            if (closed !== undefined) return Effect.fail(closed)
            if (waiting.size > 0 || !hasRoom()) return Effect.as(wait(launch), launch)
            enter(launch)
            return Effect.succeed(launch)
          })
          return Effect.zipRight(Scope.addFinalizer(scope, withdraw), begin)
        }),
      admit: () => {
        for (const [launch, admitted] of waiting) {
          if (!hasRoom()) return
          waiting.delete(launch)
          enter(launch)
          Deferred.unsafeDone(admitted, Effect.void)
        }
      },
      report: Effect.suspend(() =>
        Effect.forEach(
          givenUp.splice(0),
          ([launch, error]) =>
            Effect.zipRight(
              launch.refuse(error),
              refusals.count("launch", error, { details: { visitor: String(launch.signal.visitor) } })
            ),
          { discard: true }
        )
      ),
      dropConnections: () => {
        for (const [launch, admitted] of waiting) {
          givenUp.push([launch, new LaunchRefused({ reason: "Restarted" })])
          Deferred.unsafeDone(admitted, Effect.void)
        }
        waiting.clear()
      },
      close: (error) => {
        closed = error
        for (const admitted of waiting.values()) Deferred.unsafeDone(admitted, Effect.fail(error))
        waiting.clear()
      }
    }
  })

// internal

class PendingLaunch implements LaunchHandle {
  /** Its place in the outbox, once it is there. */
  pending: PendingSignal | undefined
  private error: LaunchRefused | undefined
  private reaction: Effect.Effect<void> = Effect.void
  /** Made for the first fiber that waits: it costs 5 µs. */
  private givenUp: Deferred.Deferred<LaunchRefused> | undefined
  readonly signal: Signal.Launch

  constructor(signal: Signal.Launch) {
    this.signal = signal
  }

  get refused(): Effect.Effect<LaunchRefused> {
    return Effect.suspend(() =>
      this.error === undefined
        ? Deferred.await((this.givenUp ??= Deferred.unsafeMake(FiberId.none)))
        : Effect.succeed(this.error)
    )
  }

  whenRefused(effect: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.error !== undefined) return effect
      this.reaction = effect
      return Effect.void
    })
  }

  refuse(error: LaunchRefused): Effect.Effect<void> {
    this.error = error
    if (this.givenUp !== undefined) Deferred.unsafeDone(this.givenUp, Effect.succeed(error))
    return this.reaction
  }
}
