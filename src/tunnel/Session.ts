/**
 * One session between a client and a server: its pool and its signal bus behind one service, and the handling of the
 * peer's signals. It outlives its control connections.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Deadlines } from "../core/Deadlines.js"
import { EventBus } from "../core/EventBus.js"
import type { Refusals } from "../core/Refusals.js"
import { type PoolClosed, PeerAway } from "../pool/IdleConnections.js"
import * as Pool from "../pool/Pool.js"
import type { DatagramRelay } from "../relay/DatagramRelay.js"
import { Egress } from "../relay/Egress.js"
import type { Relay } from "../relay/Relay.js"
import type { Targets } from "../relay/Targets.js"
import * as SignalBus from "../signal/SignalBus.js"
import type { StreamHandle } from "../stream/StreamHandle.js"
import type { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import * as Signal from "../wire/Signal.js"
import * as PeerTargets from "./PeerTargets.js"
import * as SessionStreams from "./SessionStreams.js"
import * as SilentLaunches from "./SilentLaunches.js"
import type { Streams } from "./Streams.js"

/** The session ended, or lost its control connection, before the visitor had a connection. Another session may serve it. */
export type SessionOver = PoolClosed | SignalBus.SignalBusClosed | PeerAway

export class Session extends Context.Tag("nodepass/Session")<
  Session,
  {
    /** Whether visitors connect to this side or to the other. */
    readonly visitors: "local" | "remote"
    /**
     * Takes a pool connection for this visitor and launches it: the peer connects it to a target.
     *
     * The caller's scope owns the connection. When the peer does not take the launch, the connection is reset later.
     */
    readonly open: (visit: Signal.Visit) => Effect.Effect<Connection, SessionOver, Scope.Scope>
    /** A stream for this visitor; `None` when `open` has to be used, which may wait. The caller's scope owns it. */
    readonly openStream: (visit: Signal.Visit) => Effect.Effect<Option.Option<Connection>, never, Scope.Scope>
    /** As `openStream`, without a fiber: it is opened once it is joined. */
    readonly openStreamNow: (visit: Signal.Visit) => StreamHandle | undefined
    /** Handles the peer's signals until the session is over. Run it once. */
    readonly run: Effect.Effect<never, SignalBus.SignalBusClosed>
    /** Replaces every idle pool connection, e.g. after the network changed. */
    readonly flush: Effect.Effect<void, SignalBus.SignalBusClosed>
    /** Resets the connection of every visitor of this session. */
    readonly abandon: Effect.Effect<void>
    /**
     * Another process continues the session on the other side, and the connections of the previous one are dead: resets every
     * visitor and every pool connection. Run it before its control connection is attached.
     */
    readonly restartPeer: Effect.Effect<void>
    readonly stats: Effect.Effect<Pool.Stats>

    /** Uses this control connection in place of the previous one; completes with the reason when it is lost. */
    readonly attach: (control: SignalBus.ControlConnection) => Effect.Effect<SignalBus.ControlLost>
    /** Whether the session has a control connection. */
    readonly isAttached: () => boolean
    /**
     * Calls the listener when the session gets or loses its control connection, and when the other side reaches its targets
     * no longer or again, until the returned function is called.
     */
    readonly watch: (listener: () => void) => () => void
    /** Why the other side reaches no target; `None` when it does, as far as is known, and when the targets are of this side. */
    readonly trouble: Effect.Effect<Option.Option<string>>
    /** The highest number of a peer's signal that was handled; `-1` before the first. */
    readonly received: () => number
    /** Round trip of the last ping; `None` before the first answer. */
    readonly roundTrip: Effect.Effect<Option.Option<Duration.Duration>>
    /** Pings the peer; whether anything was received from it within that time. */
    readonly probe: (within: Duration.DurationInput) => Effect.Effect<boolean>

    /** Sends the peer a `Bye`, if it is attached, and waits until that is written, or until the peer has closed. */
    readonly leave: SignalBus.SignalBus["Type"]["leave"]
    /** Stops without a `Bye`; the snapshot is what another process needs to continue the session. */
    readonly suspend: Effect.Effect<SignalBus.Snapshot>
    /** What another process needs to continue the session from now. */
    readonly snapshot: SignalBus.SignalBus["Type"]["snapshot"]
    /** See `Outbox.reserve`. */
    readonly reserve: SignalBus.SignalBus["Type"]["reserve"]
  }
>() {}

export interface Options {
  /** Whether visitors connect to this side or to the other. */
  readonly visitors: "local" | "remote"
  /** Whether visitors are served by streams, as both sides agreed. Defaults to `false`: by a pool connection each. */
  readonly streams?: boolean | undefined
}

export const layer = (
  options: Options
): Layer.Layer<
  Session,
  never,
  | DatagramRelay
  | Deadlines
  | Egress
  | EventBus
  | Pool.Pool
  | Refusals
  | Relay
  | Settings
  | SignalBus.SignalBus
  | Streams
  | Targets
> =>
  Layer.scoped(
    Session,
    Effect.gen(function* () {
      const bus = yield* SignalBus.SignalBus
      const pool = yield* Pool.Pool
      const listeners = new Set<() => void>()
      const peerTargets = PeerTargets.make(() => {
        for (const listener of listeners) listener()
      })
      const visitors = yield* makeVisitors(options, peerTargets)
      const reportTargets = options.visitors === "remote" ? yield* PeerTargets.report : Effect.void
      // A visitor that waits for a connection is free to go through another session.
      const unwatch = bus.watch((attached) => {
        if (!attached) pool.rejectWaiting()
      })
      yield* Effect.addFinalizer(() => Effect.sync(unwatch))
      return Session.of({
        visitors: options.visitors,
        open: visitors.open,
        openStream: visitors.openStream,
        openStreamNow: visitors.openStreamNow,
        run: bus.run(visitors.receive),
        flush: options.visitors === "local" ? pool.trim(0) : bus.send(new Signal.Flush()),
        abandon: visitors.abandon,
        stats: pool.stats,
        restartPeer: Effect.suspend(() => {
          peerTargets.forget()
          return Effect.all([bus.dropConnections, visitors.restart, pool.discard, reportTargets], { discard: true })
        }),
        attach: bus.attach,
        isAttached: bus.isAttached,
        watch: (listener) => {
          const unwatch = bus.watch(listener)
          listeners.add(listener)
          return () => {
            unwatch()
            listeners.delete(listener)
          }
        },
        trouble: peerTargets.trouble,
        received: bus.received,
        roundTrip: bus.roundTrip,
        probe: bus.probe,
        // What the peer resets because the session ends is no failure.
        leave: (until) => Effect.zipRight(pool.stop, bus.leave(until)),
        suspend: bus.suspend,
        snapshot: bus.snapshot,
        reserve: bus.reserve
      })
    })
  )

// internal

/** Launches in both directions: those of this side's visitors, and those that the peer sends. */
const makeVisitors = ({ streams: hasStreams = false, visitors }: Options, { onTargets }: PeerTargets.PeerTargets) =>
  Effect.gen(function* () {
    const bus = yield* SignalBus.SignalBus
    const egress = yield* Egress
    const events = yield* EventBus
    const pool = yield* Pool.Pool

    const run = yield* FiberSet.makeRuntime()
    const silent = yield* SilentLaunches.make({ flush: pool.trim(0) })

    const take = (launch: Signal.Launch) =>
      pool.take(launch.id).pipe(
        Effect.tapError(() => silent.withdraw(launch.id)),
        Effect.tap((connection) => silent.add(launch, connection))
      )
    const serve = (launch: Signal.Launch) =>
      Effect.zipRight(
        launched("received", launch),
        egress.launch(launch, { take: take(launch), refuse: (when) => silent.refuse(launch.id, when) })
      )
    const launched = (direction: "sent" | "received", { protocol, visitor }: Signal.Visit) =>
      events.publish(() => ({ _tag: "Launched", direction, protocol, visitor }))

    const serveStream: SessionStreams.Options["serve"] = (launch, source) =>
      // The reset of a stream tells the other side that no target was reached.
      Effect.zipRight(launched("received", launch), egress.launch(launch, { ...source, refuse: () => Effect.void }))
    const serveStreamNow: SessionStreams.Options["serveNow"] = (launch, stream) => {
      const isServed = egress.launchNow(launch, stream)
      if (isServed && events.hasListeners()) run(launched("received", launch))
      return isServed
    }
    const streams = hasStreams
      ? yield* SessionStreams.make({ visitors, serve: serveStream, serveNow: serveStreamNow })
      : undefined

    const launch = (visit: Signal.Visit, { connection, id }: { connection: Connection; id: Signal.ConnectionId }) =>
      Effect.suspend((): Effect.Effect<void, SessionOver, Scope.Scope> =>
        bus.isAttached()
          ? Effect.flatMap(
              bus.launch(
                Signal.makeLaunch({ protocol: visit.protocol, id, visitor: visit.visitor, entry: visit.entry })
              ),
              (handle) => handle.whenRefused(connection.reset)
            )
          : new PeerAway()
      )

    const receive = (signal: SignalBus.Delivered): Effect.Effect<void> => {
      switch (signal._tag) {
        case "Launch":
          return visitors === "remote"
            ? serve(signal)
            : Effect.logWarning("ignored a launch from the peer: in this tunnel visitors connect to this side")
        case "Carry":
          return streams === undefined || visitors === "local"
            ? Effect.logWarning("ignored a carrier from the peer: in this session it opens none")
            : streams.onCarry(signal)
        case "Demand":
          return pool.warm(signal.count)
        case "Flush":
          // From the side that visitors connect to: it has found them dead.
          return visitors === "local" ? pool.trim(0) : pool.discard
        case "Keep":
          return pool.trim(signal.count)
        case "Silent":
          return silent.onSilent(signal)
        case "Withdrawn":
          return silent.onWithdrawn(signal)
        case "Refused":
          return silent.onRefused(signal)
        case "Targets":
          return visitors === "local"
            ? onTargets(signal)
            : Effect.logWarning("ignored the state of the peer's targets: in this tunnel the targets are of this side")
        case "Terms":
          return Effect.logDebug("ignored terms from the peer: they are agreed on in the handshake")
      }
    }

    /** Launches the visitor over a pool connection of its own. */
    const openPooled = (visit: Signal.Visit) =>
      Effect.flatMap(pool.takeAny, (taken) =>
        Effect.tapError(launch(visit, taken), () => taken.connection.reset).pipe(
          Effect.zipRight(launched("sent", visit)),
          Effect.zipRight(silent.add({ id: taken.id, protocol: visit.protocol }, taken.connection)),
          Effect.zipRight(silent.watch(taken.id)),
          Effect.as(taken.connection)
        )
      )
    const openStream = (visit: Signal.Visit): Effect.Effect<Option.Option<Connection>, never, Scope.Scope> =>
      streams === undefined
        ? Effect.succeedNone
        : Effect.tap(streams.open(visit), (opened) => (Option.isSome(opened) ? launched("sent", visit) : Effect.void))
    const open = (visit: Signal.Visit): Effect.Effect<Connection, SessionOver, Scope.Scope> =>
      streams === undefined
        ? openPooled(visit)
        : Effect.flatMap(
            openStream(visit),
            Option.match({ onNone: () => openPooled(visit), onSome: (connection) => Effect.succeed(connection) })
          )

    const openStreamNow = (visit: Signal.Visit): StreamHandle | undefined =>
      streams?.openNow(visit, events.hasListeners() ? () => run(launched("sent", visit)) : undefined)

    return {
      receive,
      open,
      openStream,
      openStreamNow,
      abandon: Effect.suspend(() => Effect.zipRight(streams?.abandon ?? Effect.void, silent.abandon)),
      restart: Effect.suspend(() => Effect.zipRight(streams?.restart ?? Effect.void, silent.abandon))
    }
  })
