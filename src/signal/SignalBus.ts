/**
 * The signals of one session, over one control connection after the other. A signal that must arrive stays in the outbox
 * until the peer has acknowledged it, is resent on the next connection, and is handled once however often it arrives.
 *
 * Nothing is dropped and nothing grows without bound. When the peer sends faster than the handler works, its signals wait in a
 * queue; when the queue is full the bus stops reading, and TCP slows the peer down. When the peer does not keep up, launches wait.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import { EventBus } from "../core/EventBus.js"
import type { Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import type * as Signal from "../wire/Signal.js"
import * as Attachment from "./Attachment.js"
import {
  type Attached,
  type ControlConnection,
  ControlLost,
  lose,
  type Reason,
  SignalBusClosed
} from "./ControlConnection.js"
import * as Heartbeat from "./Heartbeat.js"
import * as Inbox from "./Inbox.js"
import * as Launches from "./Launches.js"
import * as Outbox from "./Outbox.js"
import * as Reader from "./Reader.js"
import { SignalCounts } from "./SignalCounts.js"
import type { SignalFeed } from "./SignalFeed.js"
import * as Sweep from "./Sweep.js"
import * as Writer from "./Writer.js"

export { type ControlConnection, ControlLost, SignalBusClosed } from "./ControlConnection.js"
export type { Delivered } from "./Inbox.js"
export { type LaunchHandle, LaunchRefused } from "./Launches.js"

/** The state of a bus, for the bus that continues its session in another process. */
export interface Snapshot {
  readonly outbox: Outbox.Snapshot
  /** The highest number of the peer that was handled. */
  readonly received: number
}

export class SignalBus extends Context.Tag("nodepass/SignalBus")<
  SignalBus,
  {
    /** Sends the signal, now or on the next control connection. It replaces one of its kind that was not sent yet. */
    readonly send: (signal: Outbox.State | Outbox.Notice) => Effect.Effect<void, SignalBusClosed>
    /**
     * Puts a launch into the outbox. Waits, in order of arrival, while the peer is away and while the outbox is full.
     *
     * It stays there until the peer acknowledges it or the scope closes. It is given up when it is not acknowledged within
     * `poolGetTimeout`, or when the session ends before; the bus counts and logs that, and the handle reports it.
     */
    readonly launch: (signal: Signal.Launch) => Effect.Effect<Launches.LaunchHandle, SignalBusClosed, Scope.Scope>
    /**
     * Handles the peer's signals until the session is over, and then fails. Run it once.
     *
     * Signals are handled one at a time, in order of arrival: a handler forks what takes long.
     */
    readonly run: <R>(
      handler: (signal: Inbox.Delivered) => Effect.Effect<void, never, R>
    ) => Effect.Effect<never, SignalBusClosed, R>
    /** Uses this control connection from now on, in place of the previous one. Completes once it is lost, with the reason. */
    readonly attach: (control: ControlConnection) => Effect.Effect<ControlLost>
    /** Sends `Bye`, if the peer is there, and waits up to a second until it is written, or until the peer has closed. */
    readonly leave: (until: "written" | "closed") => Effect.Effect<void>
    /** Whether there is a control connection. */
    readonly isAttached: () => boolean
    /**
     * Calls `listener` when a control connection is attached and when it is lost, until the returned function is called.
     *
     * The call is synchronous: no visitor may choose this session after its connection is lost.
     */
    readonly watch: (listener: (attached: boolean) => void) => () => void
    /** The highest number of the peer that was handled, `-1` before the first. */
    readonly received: () => number
    /** The duration of the last ping, or `None` before the first answer. */
    readonly roundTrip: Effect.Effect<Option.Option<Duration.Duration>>
    /** Pings the peer, and returns whether it sent anything within that time. */
    readonly probe: (within: Duration.DurationInput) => Effect.Effect<boolean>
    /**
     * Stops without `Bye`, so that another bus can continue the session from the returned state.
     *
     * The control connection is closed. Launches that were not sent are given up.
     */
    readonly suspend: Effect.Effect<Snapshot>
    /** What another process needs to continue the session from now. */
    readonly snapshot: () => Snapshot
    /** See `Outbox.reserve`. */
    readonly reserve: (limit: number) => void
    /**
     * The peer's process has ended, and another continues the session: gives up every launch, and drops every signal about
     * a pool connection. Run it before the control connection of that process is attached.
     */
    readonly dropConnections: Effect.Effect<void>
    /** Launches that the peer has not acknowledged. */
    readonly waiting: Effect.Effect<number>
  }
>() {}

/** How long `leave` waits for the peer to close the connection, and `suspend` for the last bytes to be written. */
const farewellTimeout = Duration.seconds(1)

export interface Options {
  /** The state of the bus that this one continues. Defaults to a new session. */
  readonly saved?: Snapshot | undefined
  /** Called, from within any operation, when `snapshot` is another. */
  readonly onChange?: (() => void) | undefined
}

/** A bus that continues from a snapshot ends with `Away` when the peer does not come back within `resumeGrace`. */
export const makeWith = ({
  onChange,
  saved
}: Options): Effect.Effect<
  SignalBus["Type"],
  never,
  Deadlines | EventBus | Refusals | Scope.Scope | Settings | SignalCounts | SignalFeed
> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const deadlines = yield* Deadlines
    const counts = yield* SignalCounts
    const events = yield* EventBus
    const { keyLifetime, poolGetTimeout, reportInterval, resumeGrace, signalQueue } = yield* Settings
    // Steady, unlike the time of day.
    const now = () => Number(clock.unsafeCurrentTimeNanos() / 1000n) / 1000

    const closed = yield* Deferred.make<never, SignalBusClosed>()
    // Done once nothing more is sent: `Bye` is written, or the bus is suspended.
    const farewell = yield* Deferred.make<void>()
    /** The control connection that `Bye` is sent on: the peer closes it. */
    let leaving: Attached | undefined
    const onGraceOver = (reason: Reason) => close(reason)
    const attachment = Attachment.make({ deadlines, grace: resumeGrace, onGraceOver })
    const isAttached = () => attachment.current() !== undefined

    const outbox = Outbox.make({ limit: signalQueue, snapshot: saved?.outbox, onChange })
    const inbox = yield* Inbox.make({ capacity: signalQueue, received: saved?.received, outbox, onChange })
    const timeout = Duration.toMillis(poolGetTimeout)
    const launches = yield* Launches.make({ outbox, isAttached, timeout, now })
    const heartbeat = Heartbeat.make({ outbox, interval: reportInterval, now })
    const writer = yield* Writer.make({ inbox, outbox, keyLifetime, farewell, now })
    const onBye = Effect.suspend(() => close("Left"))
    const reader = yield* Reader.make({ heartbeat, inbox, launches, outbox, onBye, now })

    const close = (reason: Reason): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (attachment.closed() !== undefined) return Effect.void
        const error = new SignalBusClosed({ reason })
        const attached = attachment.close(error)
        launches.close(error)
        return Effect.flatMap(Deferred.isDone(farewell), (sent) => {
          // What was sent before the farewell reaches the peer before it.
          outbox.close({ sent: !sent })
          const published = events.publish(() => ({ _tag: "SessionLost", why: error.message, over: true }))
          const lost = Effect.sync(() => attached && lose(attached, reason))
          return Effect.all([launches.report, published, Deferred.fail(closed, error), lost], { discard: true })
        })
      })
    const serve = (attached: Attached): Effect.Effect<ControlLost> =>
      Effect.gen(function* () {
        const { connection, received } = attached.control
        counts[received === undefined ? "sessions" : "resumed"]++
        heartbeat.start(attached)
        outbox.acknowledge(received ?? -1)
        outbox.resendAll()
        launches.admit()
        yield* events.publish(() => ({ _tag: "SessionUp", peer: connection.remote, resumed: received !== undefined }))
        yield* heartbeat.ping
        yield* Effect.forEach([reader.run(attached), writer.run(attached)], Effect.forkScoped, { discard: true })
        const lost = yield* Deferred.await(attached.lost)
        return leaving === attached ? new ControlLost({ reason: "Stopped" }) : lost
      }).pipe(
        Effect.scoped,
        Effect.tap(({ message, reason }) =>
          leaving !== attached && attachment.detach(attached, reason)
            ? events.publish(() => ({ _tag: "SessionLost", why: message, over: false }))
            : Effect.void
        )
      )

    yield* Effect.addFinalizer(() => close("Stopped"))
    if (saved !== undefined) attachment.awaitPeer()
    const snapshot = (): Snapshot => ({ outbox: outbox.snapshot(), received: inbox.received() })

    return SignalBus.of({
      send: (signal) =>
        Effect.suspend(() => {
          const error = attachment.closed()
          if (error !== undefined) return Effect.fail(error)
          outbox.put(signal)
          return Effect.void
        }),
      launch: launches.launch,
      run: (handler) =>
        Effect.gen(function* () {
          const sweeping = Sweep.run({ heartbeat, inbox, launches, outbox, isAttached, reportInterval, now })
          const pinging = Effect.repeat(heartbeat.ping, Schedule.spaced(reportInterval))
          yield* Effect.forEach([sweeping, pinging, inbox.run(handler)], Effect.forkScoped, { discard: true })
          return yield* Deferred.await(closed)
        }).pipe(Effect.scoped),
      attach: (control) =>
        Effect.suspend(() =>
          Either.match(attachment.attach(control), {
            onLeft: ({ reason }) => Effect.succeed(new ControlLost({ reason })),
            onRight: serve
          })
        ),
      leave: (until) =>
        Effect.suspend(() => {
          const attached = attachment.current()
          if (attached === undefined) return Effect.void
          leaving = attached
          outbox.putOnce("Bye")
          const written = Deferred.await(farewell)
          // Closed before the peer has read it, the connection could be reset, and the peer would miss it.
          const done = until === "written" ? written : Effect.zipRight(written, Deferred.await(attached.lost))
          // A finalizer waits here, uninterruptible.
          return Effect.ignore(Effect.timeoutOption(Effect.interruptible(done), farewellTimeout))
        }),
      suspend: Effect.suspend(() => {
        const kept = snapshot()
        const ended = Effect.ignore(attachment.current()?.control.connection.end ?? Effect.void)
        return Deferred.succeed(farewell, undefined).pipe(
          Effect.zipRight(Effect.timeoutOption(Effect.interruptible(ended), farewellTimeout)),
          Effect.zipRight(close("Stopped")),
          Effect.as(kept)
        )
      }),
      isAttached,
      watch: attachment.watch,
      received: inbox.received,
      roundTrip: Effect.sync(heartbeat.roundTrip),
      probe: heartbeat.probe,
      snapshot,
      reserve: outbox.reserve,
      dropConnections: Effect.suspend(() => {
        outbox.dropConnections()
        launches.dropConnections()
        return launches.report
      }),
      waiting: Effect.sync(outbox.size)
    })
  })

export const make = makeWith({})

export const layerWith = (
  options: Options
): Layer.Layer<SignalBus, never, Deadlines | EventBus | Refusals | Settings | SignalCounts | SignalFeed> =>
  Layer.scoped(SignalBus, makeWith(options))

export const layer = layerWith({})
