/**
 * Connects visitors to targets: those of launches, each over the pool connection that the launch names, and those that
 * are forwarded without a tunnel.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import { constFalse } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { Deadlines } from "../core/Deadlines.js"
import { DatagramRelay } from "./DatagramRelay.js"
import * as DialTurns from "./DialTurns.js"
import * as DatagramChannel from "./DatagramChannel.js"
import type { NotPooled } from "../pool/Pool.js"
import * as ProxyHeader from "../wire/ProxyHeader.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import * as LaunchNow from "./LaunchNow.js"
import { logReset, Relay, RelayIdle } from "./Relay.js"
import { Settings } from "../transport/Settings.js"
import type { Launch, Visit } from "../wire/Signal.js"
import { Slots, type SlotsFull, type UdpSlot } from "./Slots.js"
import { Targets } from "./Targets.js"
import { type Connection, Transport, type TransportError } from "../transport/Transport.js"

export class Egress extends Context.Tag("nodepass/Egress")<
  Egress,
  {
    /** A connection to a target for this visitor, the PROXY header written. The caller's scope owns it. */
    readonly connect: (visit: Visit) => Effect.Effect<Connection, TransportError, Scope.Scope>
    /** A UDP port that sends to a target, for this visitor. The caller's scope owns it. */
    readonly associate: (visit: Visit) => Effect.Effect<DatagramChannel.DatagramChannel, TransportError, Scope.Scope>
    /**
     * Serves a launch in the background. Completes at once; while 1024 launches are being dialled, it waits, for
     * `poolGetTimeout` at most.
     *
     * When no target answers within the dial timeout, or it has waited for so long, the pool connection is reset, and with it the visitor; the refusal is
     * counted and logged.
     */
    readonly launch: (launch: Launch, from: LaunchSource) => Effect.Effect<void>
    /** Serves a launch over a stream without a fiber. Returns `false`, and has begun nothing, when `launch` has to be used. */
    readonly launchNow: (launch: Launch, stream: LaunchNow.LaunchedStream) => boolean
  }
>() {}

/** The session that received a launch. */
export interface LaunchSource {
  /** Takes the pool connection that the launch names. */
  readonly take: Effect.Effect<Connection, NotPooled, Scope.Scope>
  /** Run when the launch has failed at a target: `now` when none was reached, `later` when the target broke the exchange. */
  readonly refuse: (when: "now" | "later") => Effect.Effect<void>
  /** Sets what is called when the other side has reset the visitor: then the target is not dialled any more. Defaults to never. */
  readonly onOver?: LaunchNow.LaunchedStream["onOver"] | undefined
}

export interface Options {
  /** The PROXY protocol header that a TCP target is sent first. Defaults to none. */
  readonly proxy?: "none" | "v1" | "v2" | undefined
}

/** The layer's scope owns the exchanges, so that they outlive the session of their launch. */
export const layer = (
  options?: Options
): Layer.Layer<Egress, never, DatagramRelay | Deadlines | Refusals | Relay | Settings | Slots | Targets | Transport> =>
  Layer.scoped(
    Egress,
    Effect.gen(function* () {
      const drops = yield* DatagramChannel.makeDrops
      const refusals = yield* Refusals
      const targets = yield* Targets
      const transport = yield* Transport
      const { tcpDialTimeout, udpDialTimeout } = yield* Settings
      const version = options?.proxy === "v1" ? 1 : options?.proxy === "v2" ? 2 : undefined

      const connect = ({ entry, visitor }: Visit) =>
        Effect.tap(targets.dial(visitor, transport.connect, tcpDialTimeout), (near) => {
          if (version === undefined) return Effect.void
          const destination = Option.getOrElse(entry, () => near.remote)
          return near.write(ProxyHeader.encode(version, { source: visitor, destination }))
        })

      const associate = ({ visitor }: Visit) =>
        Effect.flatMap(targets.dial(visitor, transport.associate, udpDialTimeout), (socket) =>
          Effect.provideService(DatagramChannel.overSocket(socket, drops), Refusals, refusals)
        )

      return Egress.of({
        connect,
        associate,
        launch: yield* makeLaunch({ connect, associate }, drops),
        launchNow: version === undefined ? yield* LaunchNow.make(maxDials) : constFalse
      })
    })
  )

// internal

/** The side that visitors connect to ends a silent UDP session. This side ends it only if that end never arrives. */
const idleMargin = Duration.seconds(2)

const maxDials = 1024

const makeLaunch = (
  { associate, connect }: Pick<Egress["Type"], "associate" | "connect">,
  drops: DatagramChannel.Drops
) =>
  Effect.gen(function* () {
    const datagramRelay = yield* DatagramRelay
    const refusals = yield* Refusals
    const relay = yield* Relay
    const slots = yield* Slots
    const exchanges = yield* FiberSet.make<void>()
    const { poolGetTimeout } = yield* Settings
    const turns = DialTurns.make({ limit: maxDials, timeout: poolGetTimeout }, yield* Deadlines)

    /** A slot whose eviction interrupts the fiber that acquires it. */
    const acquireUdp = (visitor: Address) =>
      Effect.withFiberRuntime<UdpSlot, SlotsFull, Scope.Scope>((fiber) =>
        slots.acquireUdp({ visitor, evict: () => fiber.unsafeInterruptAsFork(FiberId.none) })
      )

    const serve = (launch: Launch, { onOver, refuse, take }: LaunchSource) => {
      const details = { visitor: String(launch.visitor) }
      const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, { details })
      let isDialling = true
      const dialled = Effect.sync(() => {
        if (!isDialling) return
        isDialling = false
        turns.release()
      })
      let reset: Effect.Effect<void> = Effect.void
      const taken = Effect.tap(Effect.tapError(take, count("launch")), (far) => {
        reset = far.reset
      })
      const refused = (kind: Kind) => (error: RefusalError) => Effect.zipRight(refuse("now"), count(kind)(error))
      const tcp = (far: Connection) =>
        Effect.flatMap(
          Effect.zipRight(
            Effect.tapError(slots.acquire, refused("slot")),
            Effect.tapError(connect(launch), refused("target"))
          ),
          (near) =>
            Effect.zipRight(
              dialled,
              Effect.tapError(relay.exchange(near, far), (error) =>
                error._tag === "TransportError" && error.address === near.remote ? refuse("later") : Effect.void
              )
            )
        )
      const udp = (far: Connection) =>
        Effect.gen(function* () {
          const slot = yield* Effect.tapError(acquireUdp(launch.visitor), refused("slot"))
          const near = yield* Effect.tapError(associate(launch), refused("target"))
          const tunnel = DatagramChannel.overConnection(far, drops)
          yield* dialled
          const exchange = datagramRelay.exchange(near, tunnel, { visitor: "far", slot, idleMargin })
          return yield* Effect.annotateLogs(exchange, details)
        })
      const served = Effect.flatMap(taken, launch.protocol === "tcp" ? tcp : udp)
      const logged = (cause: Cause.Cause<RefusalError>) =>
        Option.match(Cause.failureOption(cause), {
          onNone: () => Effect.failCause(cause),
          onSome: (error) =>
            logReset(error, error instanceof RelayIdle ? { ...details, target: String(error.near) } : details)
        })
      // As few steps as possible around the exchange: what they allocate lives as long as the visitor.
      const run = Effect.flatMap(Scope.make(), (scope) => {
        const close = (exit: Exit.Exit<void, RefusalError>) => Effect.zipRight(dialled, Scope.close(scope, exit))
        return Effect.matchCauseEffect(Effect.interruptible(Scope.extend(served, scope)), {
          onFailure: (cause) => Effect.zipRight(reset, Effect.zipRight(close(Exit.failCause(cause)), logged(cause))),
          onSuccess: () => close(Exit.void)
        })
      })
      if (onOver === undefined) return run
      return Effect.withFiberRuntime<void, RefusalError>((fiber) => {
        onOver(() => {
          if (isDialling) fiber.unsafeInterruptAsFork(FiberId.none)
        })
        return run
      })
    }
    const refuse = ({ visitor }: Launch, { refuse, take }: LaunchSource, error: DialTurns.DialsFull) =>
      refusals
        .count("target", error, { details: { visitor: String(visitor) } })
        .pipe(
          Effect.zipRight(refuse("now")),
          Effect.zipRight(Effect.ignore(Effect.scoped(Effect.flatMap(take, ({ reset }) => reset))))
        )

    const launch: Egress["Type"]["launch"] = (launch, from) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.matchEffect(restore(turns.take), {
          onFailure: (error) => refuse(launch, from, error),
          onSuccess: () =>
            FiberSet.run(
              exchanges,
              Effect.suspend(() => serve(launch, from))
            )
        })
      )
    return launch
  })
