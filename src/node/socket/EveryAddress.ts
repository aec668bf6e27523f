/**
 * Opens one port on every address of a host name.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Address from "../../core/Address.js"
import { TransportError } from "../../transport/Transport.js"
import * as Errno from "./Errno.js"
import type { IpAddress } from "./NodeHosts.js"
import type { Resolver } from "./Resolver.js"

export interface Options<A> {
  readonly resolver: Resolver
  readonly operation: "bind" | "listen"
  /** Opens the port on one address, in the scope. */
  readonly open: (ipAddress: IpAddress, port: number) => Effect.Effect<A, TransportError, Scope.Scope>
  readonly portOf: (opened: A) => number
}

/**
 * The port on each address of the host, the preferred address first. When port `0` is requested, the system chooses one
 * that all of them have.
 *
 * An address of another machine is skipped while the host has an address here. Fails when any other address fails.
 */
export const open = <A>(
  address: Address.Address,
  { open, operation, portOf, resolver }: Options<A>
): Effect.Effect<Arr.NonEmptyArray<A>, TransportError, Scope.Scope> =>
  resolver.resolve(address.host).pipe(
    Effect.mapError((cause) => Errno.fromNode(operation, address, cause)),
    Effect.flatMap(({ addresses }) => {
      const attempt = inChildScope(
        Effect.gen(function* () {
          const opened: Array<A> = []
          let unavailable = new TransportError({ operation, address, reason: "UnknownHost" })
          for (const ipAddress of addresses) {
            const port = opened[0] === undefined ? address.port : portOf(opened[0])
            yield* Effect.matchEffect(open(ipAddress, port), {
              onSuccess: (one) => Effect.sync(() => void opened.push(one)),
              onFailure: (error) =>
                error.reason === "AddressUnavailable"
                  ? Effect.sync(() => void (unavailable = error))
                  : Effect.fail(error)
            })
          }
          return Arr.isNonEmptyArray(opened) ? opened : yield* unavailable
        })
      )
      // The port that the system chose for the first address may be in use on another one.
      const isRetryable = ({ reason }: TransportError) =>
        reason === "AddressInUse" && address.port === 0 && addresses.length > 1
      return Effect.retry(attempt, { times: 9, while: isRetryable })
    })
  )

// internal

/** Closes what was opened as soon as the effect fails. */
const inChildScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Effect.Effect<A, E, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (parent) =>
      Effect.flatMap(Scope.fork(parent, ExecutionStrategy.sequential), (scope) =>
        restore(Scope.extend(effect, scope)).pipe(
          Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
        )
      )
    )
  )
