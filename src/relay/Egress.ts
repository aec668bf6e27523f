/**
 * The way out to the targets: for the launches that arrive through a tunnel, each on the pool connection that the peer
 * named, and for visitors who are forwarded straight.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { DatagramRelay } from "./DatagramRelay.js"
import * as DatagramChannel from "./DatagramChannel.js"
import type { NotPooled } from "../pool/Pool.js"
import * as ProxyHeader from "../wire/ProxyHeader.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import { Relay } from "./Relay.js"
import { Settings } from "../transport/Settings.js"
import type { Launch, Visit } from "../wire/Signal.js"
import { Slots } from "./Slots.js"
import { Targets } from "./Targets.js"
import { type Connection, Transport, type TransportError } from "../transport/Transport.js"

export class Egress extends Context.Tag("nodepass/Egress")<
  Egress,
  {
    /** A connection to a target for this visitor, the PROXY header written. The caller's scope owns it. */
    readonly connect: (visit: Visit) => Effect.Effect<Connection, TransportError, Scope.Scope>
    /** A UDP port towards a target for this visitor. The caller's scope owns it. */
    readonly associate: (visit: Visit) => Effect.Effect<DatagramChannel.DatagramChannel, TransportError, Scope.Scope>
    /**
     * Brings a launch to a target, by itself; completes at once unless 1024 launches are being dialled, and then waits.
     *
     * `take` is the pool of the session that asked. A visitor whose targets all refuse, or do not answer within the
     * dial timeout, is reset; it is counted and logged.
     */
    readonly launch: (
      launch: Launch,
      take: (id: Launch["id"]) => Effect.Effect<Connection, NotPooled, Scope.Scope>
    ) => Effect.Effect<void>
  }
>() {}

export interface Options {
  /** The PROXY protocol header that TCP targets are sent first. Defaults to none. */
  readonly proxy?: "none" | "v1" | "v2" | undefined
}

/** The side that visitors come to ends an idle session; this one only when it was not told of that. */
const patience = Duration.seconds(2)

const dialsAtOnce = 1024

/** Relays live in the layer's scope, so that they outlive the session that launched them. */
export const layer = (
  options?: Options
): Layer.Layer<Egress, never, DatagramRelay | Refusals | Relay | Settings | Slots | Targets | Transport> =>
  Layer.scoped(
    Egress,
    Effect.gen(function* () {
      const checks = yield* DatagramChannel.checks
      const datagramRelay = yield* DatagramRelay
      const refusals = yield* Refusals
      const relay = yield* Relay
      const slots = yield* Slots
      const targets = yield* Targets
      const transport = yield* Transport
      const { tcpDialTimeout, udpDialTimeout } = yield* Settings
      const exchanges = yield* FiberSet.make<void>()
      const dialling = yield* Effect.makeSemaphore(dialsAtOnce)
      const version = options?.proxy === "v1" ? 1 : options?.proxy === "v2" ? 2 : undefined

      const connect = ({ entry, visitor }: Visit) =>
        Effect.tap(targets.dial(visitor, transport.connect, tcpDialTimeout), (near) => {
          if (version === undefined) return Effect.void
          const destination = Option.getOrElse(entry, () => near.remote)
          return near.write(ProxyHeader.encode(version, { source: visitor, destination }))
        })

      const associate = ({ visitor }: Visit) =>
        Effect.flatMap(targets.dial(visitor, transport.associate, udpDialTimeout), (socket) =>
          Effect.provideService(DatagramChannel.overSocket(socket, checks), Refusals, refusals)
        )

      return Egress.of({
        connect,
        associate,
        launch: (launch, take) =>
          Effect.suspend(() => {
            let dials = true
            const settled = Effect.suspend(() => {
              const first = dials
              dials = false
              return first ? dialling.release(1) : Effect.void
            })
            const details = { visitor: String(launch.visitor) }
            const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, { details })
            let reset: Effect.Effect<void> = Effect.void
            const took = Effect.tap(Effect.tapError(take(launch.id), count("launch")), (far) => {
              reset = far.reset
              return Effect.tapError(slots.acquire, count("slot"))
            })
            const carried =
              launch.protocol === "tcp"
                ? Effect.flatMap(took, (far) =>
                    Effect.flatMap(Effect.tapError(connect(launch), count("target")), (near) =>
                      Effect.zipRight(settled, relay.exchange(near, far))
                    )
                  )
                : Effect.flatMap(took, (far) =>
                    Effect.flatMap(Effect.tapError(associate(launch), count("target")), (near) => {
                      const tunnel = DatagramChannel.overConnection(far, checks)
                      const exchange = datagramRelay.exchange(near, tunnel, { patience })
                      return Effect.zipRight(settled, Effect.annotateLogs(exchange, details))
                    })
                  )
            const logged = (cause: Cause.Cause<RefusalError>) =>
              Option.match(Cause.failureOption(cause), {
                onNone: () => Effect.failCause(cause),
                onSome: ({ message }) =>
                  Effect.logDebug("visit ended early").pipe(Effect.annotateLogs({ ...details, why: message }))
              })
            // What stands around the exchange is kept as long as the visitor: as little as can be.
            const visit = Effect.flatMap(Scope.make(), (scope) => {
              const over = (exit: Exit.Exit<void, RefusalError>) => Effect.zipRight(settled, Scope.close(scope, exit))
              return Effect.matchCauseEffect(Effect.interruptible(Scope.extend(carried, scope)), {
                onFailure: (cause) =>
                  Effect.zipRight(reset, Effect.zipRight(over(Exit.failCause(cause)), logged(cause))),
                onSuccess: () => over(Exit.void)
              })
            })
            return Effect.uninterruptibleMask((restore) =>
              Effect.zipRight(restore(dialling.take(1)), FiberSet.run(exchanges, visit))
            )
          })
      })
    })
  )
