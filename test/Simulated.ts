/**
 * Programs in virtual time on a simulated network. Each must end by itself and close all that it opened.
 *
 * `it.simulated` and `it.simulated.prop` are tests of such programs, `it.drawn` one of a whole world that is drawn as a
 * value. A failure shows the seed and the smallest inputs that fail.
 */
import * as vitest from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import * as SimNetwork from "../src/testing/SimNetwork.js"
import * as Simulation from "../src/testing/Simulation.js"

export interface World {
  readonly network: SimNetwork.SimNetwork
  /** The seed of this run, for services that draw. */
  readonly seed: number
}

export interface Options<R = never> {
  /** Of the network that is made for the program. */
  readonly link?: SimNetwork.Link | undefined
  /** A network that was made before, in place of one of its own. */
  readonly network?: SimNetwork.SimNetwork | undefined
  /** Built in the world, and closed with the program. */
  readonly layers?: Layer.Layer<R> | undefined
  /** See `Simulation.Options`. */
  readonly turn?: number | undefined
  /** See `Simulation.Options`. Defaults to five million. */
  readonly maxSteps?: number | undefined
}

/** Runs the program and gives its value. Fails the test when it fails, and when it leaves a connection or a fiber. */
export const run = <A, E, R = never>(
  {
    layers,
    link,
    maxSteps = 5_000_000,
    network = SimNetwork.make(link),
    seed,
    turn
  }: Options<R> & {
    readonly seed: number
  },
  program: (world: World) => Effect.Effect<A, E, R | Scope.Scope>
): A => {
  const main = Effect.suspend(() => program({ network, seed })).pipe(
    Effect.provide(layers ?? (Layer.empty as Layer.Layer<R>)),
    Effect.scoped,
    Effect.provide(Logger.remove(Logger.defaultLogger))
  )
  const { exit, leftover } = Simulation.run(main, { seed, maxSteps, turn })
  if (Exit.isFailure(exit)) throw errorOf(exit.cause, seed)
  vitest.assert.deepStrictEqual({ connections: network.open(), fibers: leftover }, { connections: 0, fibers: 0 })
  return exit.value
}

export interface TestOptions<R> extends Options<R> {
  /** How many seeds are drawn. Defaults to one, and for `prop` to what FastCheck draws. */
  readonly seeds?: number | undefined
}

type Values<Arbitraries extends ReadonlyArray<FastCheck.Arbitrary<unknown>>> = {
  readonly [K in keyof Arbitraries]: Arbitraries[K] extends FastCheck.Arbitrary<infer A> ? A : never
}

/** A test of the program, in a fresh world for each seed. */
const simulated = <A, E, R = never>(
  name: string,
  { seeds = 1, ...options }: TestOptions<R>,
  program: (world: World) => Effect.Effect<A, E, R | Scope.Scope>
) => prop(name, [], { ...options, seeds }, (_, world) => program(world))

/** As `it.prop`, the program in a fresh world for each draw. */
const prop = <const Arbitraries extends ReadonlyArray<FastCheck.Arbitrary<unknown>>, A, E, R = never>(
  name: string,
  arbitraries: Arbitraries,
  { seeds, ...options }: TestOptions<R>,
  program: (values: Values<Arbitraries>, world: World) => Effect.Effect<A, E, R | Scope.Scope>
) => {
  const values = FastCheck.tuple(...arbitraries) as unknown as FastCheck.Arbitrary<Values<Arbitraries>>
  const draws = FastCheck.tuple(FastCheck.noShrink(FastCheck.nat()), values)
  return drawn(name, draws, seeds, ([seed, values]) => {
    run({ ...options, seed }, (world) => program(values, world))
  })
}

/** A test that checks each of so many values. A failure shows the smallest value that fails. */
const drawn = <A>(
  name: string,
  arbitrary: FastCheck.Arbitrary<A>,
  count: number | undefined,
  check: (value: A) => void
) =>
  vitest.it(name, async () => {
    const property = FastCheck.asyncProperty(arbitrary, async (value) => {
      check(value)
      await nextTurn()
    })
    await FastCheck.assert(property, count === undefined ? {} : { numRuns: count })
  })

export const it = Object.assign(vitest.it, { drawn, simulated: Object.assign(simulated, { prop }) })

// internal

/** The assertion that failed, as itself, so that the runner shows the difference; anything else with its cause. */
const errorOf = (cause: Cause.Cause<unknown>, seed: number): unknown => {
  const error = Cause.squash(cause)
  return error instanceof Error && Cause.isDieType(cause) ? error : new Error(`seed ${seed}: ${Cause.pretty(cause)}`)
}

/** Lets the runner answer between two worlds. */
const nextTurn = () => new Promise<void>((resolve) => void setImmediate(resolve))
