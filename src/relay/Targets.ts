/**
 * The targets a tunnel dials: whose turn it is, and which of them are avoided because they failed lately.
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
import * as Layer from "effect/Layer"
import * as Order from "effect/Order"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import * as ChildFiber from "../core/ChildFiber.js"
import { Deadlines } from "../core/Deadlines.js"
import { Transport, TransportError } from "../transport/Transport.js"

/** Each in turn (`rr`), the one with the fewest exchanges now (`least`), or always the same for a visitor's host (`hash`). */
export const Balance = Schema.Literal("rr", "least", "hash")
export type Balance = typeof Balance.Type

export interface State {
  readonly target: Address
  /** Exchanges on it now, those included that are being opened. */
  readonly live: number
  /** It failed, and has not answered since. */
  readonly avoided: boolean
}

export class Targets extends Context.Tag("nodepass/Targets")<
  Targets,
  {
    /**
     * Opens the way to the target whose turn it is, or to the next one when that fails, until one answers.
     *
     * `open` is tried with one target at a time, and what it opened is closed at once when it fails. An attempt with
     * another target behind it gets its share of `within`, and 3 s at most; the last one gets the rest. What was opened,
     * and the exchange counted, are the caller's scope's.
     * Fails with the failure of the last target tried, `TimedOut` when that did not answer.
     */
    readonly dial: <A, R>(
      visitor: Address,
      open: (target: Address) => Effect.Effect<A, TransportError, R>,
      within: Duration.Duration
    ) => Effect.Effect<A, TransportError, R | Scope.Scope>
    /**
     * Has the targets probed as `check` says until the caller's scope closes, which is for a side that dials them: where
     * visitors come in, the target is this side's own port.
     */
    readonly probe: Effect.Effect<void, never, Scope.Scope>
    /** Each target as it is now, in the order given. */
    readonly states: Effect.Effect<ReadonlyArray<State>>
  }
>() {}

export interface Options {
  readonly targets: readonly [Address, ...ReadonlyArray<Address>]
  /** Whose turn it is. Defaults to `rr`. */
  readonly balance?: Balance | undefined
  /** Probed, each target is connected to this often, whether visitors come or not; more than zero. Defaults to never. */
  readonly check?: Duration.Duration | undefined
}

/**
 * Targets, all serving at first.
 *
 * A target that failed is passed over for 1 s, doubling with each failure in a row up to 30 s; then one visitor or probe
 * tries it again, and the others pass it over until that is decided. When all are avoided they are tried all the same,
 * soonest due first. A lone target without probes is never avoided.
 */
export const layer = (options: Options): Layer.Layer<Targets, never, Deadlines | Transport> =>
  Layer.effect(
    Targets,
    Effect.gen(function* () {
      const deadlines = yield* Deadlines
      const transport = yield* Transport
      const { balance = "rr", check } = options
      const standings = Arr.map(options.targets, makeStanding)
      const judged = standings.length > 1 || check !== undefined
      let turn = 0

      /** Chooses a target and begins the attempt in one step, so that no other visitor sees what lies between. */
      const next = (untried: ReadonlySet<Standing>, visitor: Address, now: number): Attempt => {
        const candidates = standings.filter((standing) => untried.has(standing))
        const ready = candidates.filter(({ health }) => isReady(health, now))
        const inTurn = Order.mapInput(
          Order.number,
          ({ index }: Standing) => (index - turn + standings.length) % standings.length
        )
        const standing = Arr.isNonEmptyArray(ready)
          ? Arr.min(ready, orders[balance](inTurn, visitor))
          : Arr.isNonEmptyArray(candidates)
            ? Arr.min(candidates, soonestDue)
            : standings[0]
        turn = standing.index + 1
        standing.live++
        return begin(standing)
      }

      const limited = <A, R>(
        open: Effect.Effect<A, TransportError, R>,
        { target }: Standing,
        duration: Duration.Duration
      ) =>
        deadlines.limit(open, {
          duration,
          onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address: target })
        })

      const probe = (standing: Standing, every: Duration.Duration) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.suspend(() => {
            const attempt = begin(standing)
            const connect = limited(transport.connect(standing.target), standing, Duration.min(every, probeTime))
            return Effect.exit(restore(ChildFiber.run(Effect.scoped(connect)))).pipe(
              Effect.tap((exit) => decide(attempt, exit, Duration.min(every, longestWhile))),
              Effect.flatMap(Exit.match({ onFailure: diedOf, onSuccess: () => Effect.void }))
            )
          })
        )

      // A share of a millisecond of simulated time has `Schedule.fixed` run again and again at one instant.
      const probeOnce = (standing: Standing, every: Duration.Duration) =>
        Effect.flatMap(Effect.timed(probe(standing, every)), ([took]) => Effect.sleep(Duration.subtract(every, took)))

      /** Nobody judges the only target, and what fails there leaves nothing open. */
      const dialOnly = <A, R>(
        open: (target: Address) => Effect.Effect<A, TransportError, R>,
        within: Duration.Duration
      ): Effect.Effect<A, TransportError, R | Scope.Scope> =>
        Effect.uninterruptibleMask((restore) =>
          Effect.scopeWith((scope) => {
            const [standing] = standings
            const leave = Effect.sync(() => standing.live--)
            standing.live++
            const opening = Effect.onError(restore(limited(open(standing.target), standing, within)), () => leave)
            return Effect.tap(opening, () => Scope.addFinalizer(scope, leave))
          })
        )

      return Targets.of({
        dial: (visitor, open, within) => {
          if (!judged) return dialOnly(open, within)
          return Effect.uninterruptibleMask((restore) =>
            Effect.gen(function* () {
              const parent = yield* Effect.scope
              const untried = new Set(standings)
              let now = yield* Clock.currentTimeMillis
              const end = now + Duration.toMillis(within)
              for (;;) {
                const attempt = next(untried, visitor, now)
                const { standing } = attempt
                const share = Math.min(untried.size > 1 ? longestShare : Infinity, (end - now) / untried.size)
                untried.delete(standing)
                const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
                yield* Scope.addFinalizer(
                  scope,
                  Effect.sync(() => standing.live--)
                )
                const opening = limited(open(standing.target), standing, Duration.millis(share))
                const exit = yield* Effect.exit(restore(Scope.extend(opening, scope)))
                yield* decide(attempt, exit, Duration.zero)
                if (Exit.isSuccess(exit)) return exit.value
                yield* Scope.close(scope, exit)
                now = yield* Clock.currentTimeMillis
                // What is not a failure of the target is an interruption or a defect.
                const failure = Cause.failureOrCause(exit.cause)
                if (Either.isRight(failure)) return yield* Effect.failCause(failure.right)
                if (untried.size === 0 || now >= end) return yield* failure.left
              }
            })
          )
        },
        probe:
          check === undefined
            ? Effect.void
            : Effect.forEach(standings, (standing) => Effect.forkScoped(Effect.forever(probeOnce(standing, check))), {
                discard: true
              }),
        states: Effect.sync(() =>
          standings.map(({ health, live, target }) => ({ target, live, avoided: health._tag !== "Serving" }))
        )
      })
    })
  )

// internal

const shortestWhile = Duration.seconds(1)
const longestWhile = Duration.seconds(30)
const probeTime = Duration.seconds(5)
const longestShare = 3000

interface Avoided {
  readonly _tag: "Avoided"
  /** In a row. */
  readonly failures: number
  /** When its while is over. */
  readonly due: number
}

/** Compared by identity: each failure makes another one. */
type Health = { readonly _tag: "Serving" } | Avoided | { readonly _tag: "Retried"; readonly avoided: Avoided }

const serving: Health = { _tag: "Serving" }

interface Standing {
  readonly target: Address
  readonly index: number
  readonly hash: number
  live: number
  health: Health
}

interface Attempt {
  readonly standing: Standing
  /**
   * The health this attempt may take away by failing, while it is still the same: failures that overlap count once.
   * `undefined` when the failure is somebody else's to find out.
   */
  readonly claim: Health | undefined
}

const makeStanding = (target: Address, index: number): Standing => ({
  target,
  index,
  hash: hash(String(target)),
  live: 0,
  health: serving
})

// At the instant it is due itself, a probe comes first.
const isReady = (health: Health, now: number): boolean =>
  health._tag === "Serving" || (health._tag === "Avoided" && health.due < now)

const begin = (standing: Standing): Attempt => {
  const { health } = standing
  if (health._tag === "Retried") return { standing, claim: undefined }
  if (health._tag === "Avoided") standing.health = { _tag: "Retried", avoided: health }
  return { standing, claim: standing.health }
}

/** What the attempt's end says of the target; a failure keeps it avoided for `least` at least. */
const decide = (
  { claim, standing }: Attempt,
  exit: Exit.Exit<unknown, TransportError>,
  least: Duration.Duration
): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const { health } = standing
    const said = Effect.annotateLogs({ target: String(standing.target) })
    if (Exit.isSuccess(exit)) {
      standing.health = serving
      return health._tag === "Serving" ? Effect.void : said(Effect.logInfo("target serves again"))
    }
    if (health !== claim) return Effect.void
    const failure = Cause.failureOrCause(exit.cause)
    if (Either.isRight(failure) || failure.left.reason === "Exhausted") {
      // It says nothing of the target: the next one may try.
      if (health._tag === "Retried") standing.health = health.avoided
      return Effect.void
    }
    const failures = health._tag === "Retried" ? health.avoided.failures + 1 : 1
    const wait = Duration.clamp(Duration.times(shortestWhile, 2 ** Math.min(failures - 1, 10)), {
      minimum: least,
      maximum: longestWhile
    })
    standing.health = { _tag: "Avoided", failures, due: now + Duration.toMillis(wait) }
    return health._tag === "Serving" ? said(Effect.logWarning(`target avoided: ${failure.left.message}`)) : Effect.void
  })

/** A failure is what a probe looks for; a defect is not. */
const diedOf = (cause: Cause.Cause<TransportError>): Effect.Effect<void> =>
  Either.match(Cause.failureOrCause(cause), { onLeft: () => Effect.void, onRight: Effect.failCause })

const fewest = Order.mapInput(Order.number, ({ live }: Standing) => live)

const orders: Record<Balance, (inTurn: Order.Order<Standing>, visitor: Address) => Order.Order<Standing>> = {
  rr: (inTurn) => inTurn,
  least: (inTurn) => Order.combine(fewest, inTurn),
  // Rendezvous: the visitor's favourite is the target with the lowest number drawn by both names together.
  hash: (_, { host }) => {
    const visitor = hash(host)
    return Order.mapInput(Order.number, (standing: Standing) => mix(standing.hash ^ visitor))
  }
}

/** Those last that somebody tries right now. */
const soonestDue = Order.mapInput(Order.number, ({ health }: Standing) =>
  health._tag === "Avoided" ? health.due : Infinity
)

/** FNV-1a. */
const hash = (text: string): number => {
  let state = 0x811c9dc5
  for (let index = 0; index < text.length; index++) state = Math.imul(state ^ text.charCodeAt(index), 0x01000193)
  return state
}

/** murmur3's last step, by which every bit counts for every bit. */
const mix = (value: number): number => {
  const once = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35)
  return (twice ^ (twice >>> 16)) >>> 0
}
