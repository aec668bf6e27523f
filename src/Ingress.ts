/**
 * Where visitors come in: each takes a slot, is given a way to the target, and is relayed until it leaves.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Address } from "./Address.js"
import { type Kind, type RefusalError, Refusals } from "./Refusals.js"
import { Relay } from "./Relay.js"
import { Slots } from "./Slots.js"
import * as Transport from "./Transport.js"

export interface Options<E extends RefusalError> {
  readonly listener: Transport.Listener
  /** Opens the way to the target for a visitor: through the tunnel, or straight to it. */
  readonly open: (visitor: Address) => Effect.Effect<Transport.Connection, E, Scope.Scope>
  /** What a failure of `open` counts as. */
  readonly refusal: Kind
}

/**
 * Serves visitors for ever. One who cannot be served is reset at once, counted and logged; none touches another.
 *
 * Visitors live in the caller's scope: interrupting this stops accepting and harms nobody who is being served.
 */
export const serve = <E extends RefusalError>({
  listener,
  open,
  refusal
}: Options<E>): Effect.Effect<never, never, Refusals | Relay | Scope.Scope | Slots> =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const relay = yield* Relay
    const slots = yield* Slots

    const visit = (visitor: Transport.Connection) => {
      const details = { visitor: String(visitor.remote) }
      const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, details)
      return Effect.gen(function* () {
        yield* Effect.tapError(slots.acquire("tcp"), count("slot"))
        const far = yield* Effect.tapError(open(visitor.remote), count(refusal))
        yield* relay.exchange(visitor, far)
      }).pipe(
        Effect.onError(() => visitor.reset),
        Effect.catchAll((error) =>
          Effect.logDebug("visit ended early").pipe(Effect.annotateLogs({ ...details, why: error.message }))
        ),
        Effect.scoped
      )
    }

    return yield* Transport.serve(listener, visit)
  })
