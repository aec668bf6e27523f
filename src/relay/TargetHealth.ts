/**
 * Whether a target is available, skipped because it failed, or being tried again.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type { Address } from "../core/Address.js"
import type { TransportError } from "../transport/Transport.js"

/** Compared by identity: each failure makes a new one. */
export type Health = { readonly _tag: "Available" } | Skipped | { readonly _tag: "Retrying"; readonly skipped: Skipped }

export interface Skipped {
  readonly _tag: "Skipped"
  /** In a row. */
  readonly failures: number
  /** When it may be tried again, in milliseconds of the clock. */
  readonly due: number
  /** Why it failed the last time. */
  readonly why: TransportError
}

export interface TargetState {
  readonly target: Address
  /** Its place in the list of targets. */
  readonly index: number
  /** Exchanges with it now, those included that are being opened. */
  live: number
  health: Health
}

/** A dial or a probe of a target. */
export interface Attempt<State extends TargetState> {
  readonly state: State
  /**
   * The health that a failure of this attempt replaces, if the target still has it: failures that overlap count once.
   * `undefined` while another attempt decides.
   */
  readonly expected: Health | undefined
}

export const available: Health = { _tag: "Available" }

/** Whether a visitor may try the target now. At the very instant it is due, a probe goes first. */
export const isReady = ({ health }: TargetState, now: number): boolean =>
  health._tag === "Available" || (health._tag === "Skipped" && health.due < now)

/** The last failure of a target that cannot be used now, as far as is known; none while it is available, or due. */
export const troubleOf = ({ health }: TargetState, now: number): Skipped | undefined =>
  health._tag === "Retrying"
    ? { ...health.skipped, due: now + Duration.toMillis(maxSkip) }
    : health._tag === "Skipped" && health.due >= now
      ? health
      : undefined

export const begin = <State extends TargetState>(state: State): Attempt<State> => {
  const { health } = state
  if (health._tag === "Retrying") return { state, expected: undefined }
  if (health._tag === "Skipped") state.health = { _tag: "Retrying", skipped: health }
  return { state, expected: state.health }
}

/** Updates the target's health by the result of the attempt. After a failure it is skipped for at least `minSkip`. */
export const finish = (
  { expected, state }: Attempt<TargetState>,
  exit: Exit.Exit<unknown, TransportError>,
  minSkip: Duration.Duration
): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const { health } = state
    const annotate = Effect.annotateLogs({ target: String(state.target) })
    if (Exit.isSuccess(exit)) {
      state.health = available
      return health._tag === "Available" ? Effect.void : annotate(Effect.logInfo("target answers again"))
    }
    if (health !== expected) return Effect.void
    const failure = Cause.failureOrCause(exit.cause)
    // An interruption, a defect, or no free descriptor in this process is not a failure of the target. The next attempt may try it.
    if (Either.isRight(failure) || failure.left.reason === "Exhausted") {
      if (health._tag === "Retrying") state.health = health.skipped
      return Effect.void
    }
    const failures = health._tag === "Retrying" ? health.skipped.failures + 1 : 1
    const skip = Duration.clamp(Duration.times(firstSkip, 2 ** Math.min(failures - 1, 10)), {
      minimum: minSkip,
      maximum: maxSkip
    })
    state.health = { _tag: "Skipped", failures, due: now + Duration.toMillis(skip), why: failure.left }
    if (health._tag !== "Available") return Effect.void
    const { message } = failure.left
    return annotate(Effect.logWarning(`target failed (${message}); skipping it for ${Duration.format(skip)}`))
  })

export const maxSkip = Duration.seconds(30)

// internal

const firstSkip = Duration.seconds(1)
