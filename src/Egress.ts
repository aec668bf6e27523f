/**
 * Where launches arrive: each takes the pool connection the peer named, dials the target, and is relayed.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Address } from "./Address.js"
import type { NotPooled } from "./Pool.js"
import { type Kind, type RefusalError, Refusals } from "./Refusals.js"
import { Relay } from "./Relay.js"
import { Settings } from "./Settings.js"
import type { Launch } from "./Signal.js"
import { Slots } from "./Slots.js"
import { type Connection, Transport, TransportError } from "./Transport.js"

export class Egress extends Context.Tag("nodepass/Egress")<
  Egress,
  {
    /**
     * Brings a launch to the target; completes when it is connected or refused, while the relay goes on by itself.
     *
     * `take` is the pool of the session that asked. A target that refuses, or does not answer within the dial
     * timeout, resets the visitor; it is counted and logged.
     */
    readonly launch: (
      launch: Launch,
      take: (id: Launch["id"]) => Effect.Effect<Connection, NotPooled, Scope.Scope>
    ) => Effect.Effect<void>
  }
>() {}

export interface Options {
  readonly target: Address
}

/** Relays live in the layer's scope, so that they outlive the session that launched them. */
export const layer = ({
  target
}: Options): Layer.Layer<Egress, never, Refusals | Relay | Settings | Slots | Transport> =>
  Layer.scoped(
    Egress,
    Effect.gen(function* () {
      const refusals = yield* Refusals
      const relay = yield* Relay
      const slots = yield* Slots
      const { tcpDialTimeout } = yield* Settings
      const transport = yield* Transport
      const exchanges = yield* FiberSet.make<void>()

      const dial = transport.connect(target).pipe(
        Effect.timeoutFail({
          duration: tcpDialTimeout,
          onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address: target })
        })
      )

      return Egress.of({
        launch: (launch, take) =>
          Effect.gen(function* () {
            const settled = yield* Effect.makeLatch(false)
            const details = { visitor: String(launch.visitor) }
            const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, details)
            const relayed = (far: Connection) =>
              Effect.gen(function* () {
                yield* Effect.tapError(slots.acquire("tcp"), count("slot"))
                const near = yield* Effect.tapError(dial, count("target"))
                yield* settled.open
                yield* relay.exchange(near, far)
              }).pipe(Effect.onError(() => far.reset))
            const exchange = Effect.tapError(take(launch.id), count("launch")).pipe(
              Effect.flatMap(relayed),
              Effect.catchAll((error) =>
                Effect.logDebug("visit ended early").pipe(Effect.annotateLogs({ ...details, why: error.message }))
              ),
              Effect.ensuring(settled.open),
              Effect.scoped
            )
            yield* FiberSet.run(exchanges, exchange)
            yield* settled.await
          })
      })
    })
  )
