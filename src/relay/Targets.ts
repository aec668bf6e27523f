/**
 * The targets that a tunnel dials: which one is next, and what happens when it fails.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Order from "effect/Order"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import * as ChildFiber from "../core/ChildFiber.js"
import { Deadlines } from "../core/Deadlines.js"
import { rootSpan } from "../core/RootSpan.js"
import * as TargetHealth from "./TargetHealth.js"
import { type Dialler, Transport, TransportError } from "../transport/Transport.js"

/** Each in turn (`rr`), the one with the fewest exchanges now (`least`), or always the same for a visitor's host (`hash`). */
export const Balance = Schema.Literal("rr", "least", "hash")
export type Balance = typeof Balance.Type

export class Targets extends Context.Tag("nodepass/Targets")<
  Targets,
  {
    /**
     * Opens a connection to the next target, or to the one after it when that fails, until one answers.
     *
     * `open` is tried with one target at a time; what a failed attempt opened is closed before the next one. An attempt
     * gets an equal share of the time that is left of `within`, at most 3 s while other targets remain. The caller's
     * scope owns what was opened, and the exchange counts until that scope closes.
     * Fails with the failure of the last target tried, `TimedOut` when that did not answer.
     */
    readonly dial: <A, R>(
      visitor: Address,
      open: (target: Address) => Effect.Effect<A, TransportError, R>,
      within: Duration.Duration
    ) => Effect.Effect<A, TransportError, R | Scope.Scope>
    /**
     * As `dial`, without a fiber, by `Transport.connectNow`: one attempt. `undefined`, and nothing was begun, where that is not
     * possible: while a target is skipped, or when a name has to be looked up. After a failure, `dial` finds out more.
     */
    readonly dialNow: (visitor: Address, on: Dialler) => DialNow | undefined
    /**
     * Probes the targets at the interval `check`, until the caller's scope closes. For the side that dials targets: on
     * the side that visitors connect to, the target is that side's own port.
     */
    readonly probe: Effect.Effect<void, never, Scope.Scope>
    /** Why no target can be used now, as far as visitors and probes of the last 30 s have shown. */
    readonly trouble: Effect.Effect<Option.Option<Trouble>>
    /** Runs the effect whenever a visitor or a probe has shown something else, until the scope closes. */
    readonly watch: (listener: Effect.Effect<void>) => Effect.Effect<void, never, Scope.Scope>
  }
>() {}

/** A dial without a fiber. */
export interface DialNow {
  /** Cancels it. */
  readonly cancel: () => void
  /** The exchange is over: call it once, after `opened`. */
  readonly leave: () => void
}

/** No target can be used. */
export interface Trouble {
  /** The last failure of each target. */
  readonly failures: ReadonlyArray<TransportError>
  /** Until one is to be tried again, unless its attempt fails before. */
  readonly until: number
}

export interface Options {
  readonly targets: readonly [Address, ...ReadonlyArray<Address>]
  /** How the next target is chosen. Defaults to `rr`. */
  readonly balance?: Balance | undefined
  /** Each target is connected to this often, whether visitors come or not; more than zero. Defaults to never. */
  readonly check?: Duration.Duration | undefined
}

/**
 * Targets, all available at first.
 *
 * A target that failed is skipped for 1 s, doubling with each failure in a row up to 30 s. Then one visitor or probe
 * tries it again, and the others skip it until that attempt has ended. When all targets are skipped they are tried all
 * the same, soonest due first. A single target without probes is never skipped.
 */
export const layer = ({
  balance = "rr",
  check,
  targets
}: Options): Layer.Layer<Targets, never, Deadlines | Transport> =>
  Layer.effect(
    Targets,
    Effect.gen(function* () {
      const transport = yield* Transport
      const deadlines = yield* Deadlines
      const limited = makeLimit(deadlines)
      const states = Arr.map(targets, makeState)
      const [only] = targets
      const connect: Connect = (target, within) => Effect.scoped(limited(transport.connect(target), target, within))
      const isSkipped = targets.length > 1 || check !== undefined
      const sole = { ...states[0] }
      const listeners = new Set<Effect.Effect<void>>()
      let shown: string | undefined
      const trouble = Effect.map(Clock.currentTimeMillis, (now): Option.Option<Trouble> => {
        const skipped = (isSkipped ? states : [sole]).flatMap((state) => TargetHealth.troubleOf(state, now) ?? [])
        if (skipped.length < (isSkipped ? states.length : 1)) return Option.none()
        return Option.some({
          failures: skipped.map(({ why }) => why),
          until: Math.min(...skipped.map(({ due }) => due))
        })
      })
      const isAllWell = () =>
        shown === undefined && (isSkipped ? states : [sole]).some(({ health }) => health._tag === "Available")
      const notify = Effect.suspend(() => {
        if (listeners.size === 0 || isAllWell()) return Effect.void
        return Effect.flatMap(trouble, (now) => {
          const before = shown
          shown = Option.match(now, {
            onNone: () => undefined,
            onSome: ({ failures, until }) => `${Math.ceil(until / 1000)} ${failures.map(({ reason }) => reason).join()}`
          })
          return shown === before ? Effect.void : Effect.forEach(listeners, (listener) => listener, { discard: true })
        })
      })
      const choose = makeChoice(states, balance)
      const dial: Targets["Type"]["dial"] = isSkipped
        ? makeDial(states, choose, limited)
        : (_, open, within) => Effect.onExit(limited(open(only), only, within), (exit) => note(sole, exit))
      const run = Runtime.runFork(yield* Effect.runtime())
      const dialNow: Targets["Type"]["dialNow"] = (visitor, on) => {
        const candidates = isSkipped ? states : [sole]
        if (candidates.some(({ health }) => health._tag !== "Available")) return undefined
        const attempt = isSkipped ? choose(new Set(states), visitor, 0) : TargetHealth.begin(sole)
        const { target } = attempt.state
        const leave = () => {
          if (isSkipped) attempt.state.live--
        }
        let cancelDeadline: (() => void) | undefined
        let isOver = false
        const end = () => {
          isOver = true
          cancelDeadline?.()
        }
        const failed = (error: TransportError) => {
          end()
          leave()
          // The only target is dialled again, whose failure counts.
          if (isSkipped) run(Effect.zipRight(TargetHealth.finish(attempt, Exit.fail(error), Duration.zero), notify))
          on.failed(error)
        }
        const cancel = transport.connectNow?.(target, {
          opened: (connection) => {
            end()
            on.opened(connection)
          },
          failed
        })
        if (cancel === undefined) {
          leave()
          return undefined
        }
        const expire = Effect.sync(() => {
          cancel()
          failed(new TransportError({ operation: "connect", reason: "TimedOut", address: target }))
        })
        if (!isOver) cancelDeadline = deadlines.after(isSkipped ? shareNow : patienceNow, expire)
        return {
          cancel: () => {
            end()
            cancel()
            leave()
          },
          leave: isSkipped ? leave : constVoid
        }
      }
      return Targets.of({
        dialNow,
        dial: (visitor, open, within) =>
          rootSpan("Targets.dial", () => ({ visitor: String(visitor) }))(
            Effect.ensuring(dial(visitor, open, within), notify)
          ),
        probe:
          check === undefined
            ? Effect.void
            : Effect.forEach(states, (state) => Effect.forkScoped(probeForever(state, check, connect, notify)), {
                discard: true
              }),
        trouble,
        watch: (listener) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => {
                // Each has one of its own.
                const own = Effect.suspend(() => listener)
                listeners.add(own)
                return own
              }),
              (own) => Effect.sync(() => listeners.delete(own))
            )
          )
      })
    })
  )

// internal

const maxProbeTime = Duration.seconds(5)
const maxShareMillis = 3000
/** How long a dial may take without a fiber. The only target is dialled again by a fiber then, about when the system would. */
const shareNow = Duration.millis(maxShareMillis)
const patienceNow = Duration.seconds(1)

interface Candidate extends TargetHealth.TargetState {
  readonly hash: number
}

const makeState = (target: Address, index: number): Candidate => ({
  target,
  index,
  hash: hash(String(target)),
  live: 0,
  health: TargetHealth.available
})

/** Records how the only target answered, for checkpoints: the next visitor tries the target in any case. */
const note = (state: TargetHealth.TargetState, exit: Exit.Exit<unknown, TransportError>): Effect.Effect<void> => {
  if (Exit.isSuccess(exit)) {
    state.health = TargetHealth.available
    return Effect.void
  }
  const failure = Cause.failureOrCause(exit.cause)
  if (Either.isRight(failure) || failure.left.reason === "Exhausted") return Effect.void
  const why = failure.left
  return Effect.map(Clock.currentTimeMillis, (now) => {
    state.health = { _tag: "Skipped", failures: 1, due: now + Duration.toMillis(TargetHealth.maxSkip), why }
  })
}

type Connect = (target: Address, within: Duration.Duration) => Effect.Effect<unknown, TransportError>

/** Fails the attempt with `TimedOut` once its time is over. */
type Limit = <A, R>(
  open: Effect.Effect<A, TransportError, R>,
  target: Address,
  within: Duration.Duration
) => Effect.Effect<A, TransportError, R>

const makeLimit =
  (deadlines: Deadlines["Type"]): Limit =>
  (open, address, duration) =>
    deadlines.limit(open, {
      duration,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
    })

const makeDial = (
  states: Arr.NonEmptyArray<Candidate>,
  choose: ReturnType<typeof makeChoice>,
  limited: Limit
): Targets["Type"]["dial"] => {
  return (visitor, open, within) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const parent = yield* Effect.scope
        const untried = new Set(states)
        let now = yield* Clock.currentTimeMillis
        const end = now + Duration.toMillis(within)
        for (;;) {
          const attempt = choose(untried, visitor, now)
          const { state } = attempt
          const share = Math.min(untried.size > 1 ? maxShareMillis : Infinity, (end - now) / untried.size)
          untried.delete(state)
          const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
          yield* Scope.addFinalizer(
            scope,
            Effect.sync(() => state.live--)
          )
          const opening = limited(open(state.target), state.target, Duration.millis(share))
          const exit = yield* Effect.exit(restore(Scope.extend(opening, scope)))
          yield* TargetHealth.finish(attempt, exit, Duration.zero)
          if (Exit.isSuccess(exit)) return exit.value
          yield* Scope.close(scope, exit)
          now = yield* Clock.currentTimeMillis
          const failure = Cause.failureOrCause(exit.cause)
          // After an interruption or a defect no other target is tried.
          if (Either.isRight(failure)) return yield* Effect.failCause(failure.right)
          if (untried.size === 0 || now >= end) return yield* failure.left
        }
      })
    )
}

/** Chooses a target and begins the attempt in one step: no other visitor runs in between. */
const makeChoice = (states: Arr.NonEmptyArray<Candidate>, balance: Balance) => {
  let turn = 0
  const inTurn = Order.mapInput(Order.number, ({ index }: Candidate) => (index - turn + states.length) % states.length)
  return (untried: Set<Candidate>, visitor: Address, now: number) => {
    const candidates = states.filter((state) => untried.has(state))
    const ready = candidates.filter((state) => TargetHealth.isReady(state, now))
    const chosen = Arr.isNonEmptyArray(ready)
      ? Arr.min(ready, orders[balance](inTurn, visitor))
      : Arr.isNonEmptyArray(candidates)
        ? Arr.min(candidates, soonestDue)
        : states[0]
    turn = chosen.index + 1
    chosen.live++
    return TargetHealth.begin(chosen)
  }
}

const fewest = Order.mapInput(Order.number, ({ live }: Candidate) => live)

const orders: Record<Balance, (inTurn: Order.Order<Candidate>, visitor: Address) => Order.Order<Candidate>> = {
  rr: (inTurn) => inTurn,
  least: (inTurn) => Order.combine(fewest, inTurn),
  // Rendezvous hashing: the visitor's target is the one with the lowest hash of both names together.
  hash: (_, { host }) => {
    const visitor = hash(host)
    return Order.mapInput(Order.number, (state: Candidate) => mix(state.hash ^ visitor))
  }
}

/** Those last that another visitor or probe tries now. */
const soonestDue = Order.mapInput(Order.number, ({ health }: Candidate) =>
  health._tag === "Skipped" ? health.due : Infinity
)

/** FNV-1a. */
const hash = (text: string): number => {
  let state = 0x811c9dc5
  for (let index = 0; index < text.length; index++) state = Math.imul(state ^ text.charCodeAt(index), 0x01000193)
  return state
}

/** The last step of murmur3: every bit of the input affects every bit of the result. */
const mix = (value: number): number => {
  const once = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35)
  return (twice ^ (twice >>> 16)) >>> 0
}

// `Schedule.fixed` runs again and again at one instant when a probe takes a fraction of a millisecond of simulated time.
const probeForever = (state: Candidate, every: Duration.Duration, connect: Connect, onResult: Effect.Effect<void>) =>
  Effect.forever(
    Effect.flatMap(Effect.timed(Effect.zipLeft(probe(state, every, connect), onResult)), ([took]) =>
      Effect.sleep(Duration.subtract(every, took))
    )
  )

const probe = (state: Candidate, every: Duration.Duration, connect: Connect) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const attempt = TargetHealth.begin(state)
      const connecting = connect(state.target, Duration.min(every, maxProbeTime))
      // A failure is the result of a probe; a defect is not.
      return Effect.exit(restore(ChildFiber.run(connecting))).pipe(
        Effect.tap((exit) => TargetHealth.finish(attempt, exit, Duration.min(every, TargetHealth.maxSkip))),
        Effect.flatten,
        Effect.ignore
      )
    })
  )
