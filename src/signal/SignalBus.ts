/**
 * The signals of one session, over one control connection after the other: what has to arrive is kept in an outbox until
 * the peer has it, said again on the next connection, and heard once however often it was said.
 *
 * When the peer outruns the handler its signals wait in a queue, and when that is full we stop reading, so that TCP
 * slows it down; when it does not keep up with ours launches wait. Nothing is dropped and nothing grows.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import type { Dialect, Heard } from "../wire/Dialect.js"
import { EventBus } from "../core/EventBus.js"
import * as Frame from "../wire/Frame.js"
import * as Liveness from "./Liveness.js"
import * as ReplayWindow from "../wire/ReplayWindow.js"
import * as Outbox from "./Outbox.js"
import { Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import type * as Signal from "../wire/Signal.js"
import type { Connection, TransportError } from "../transport/Transport.js"

const reasons = [
  "Ended",
  "Reset",
  "Silent",
  "LineTooLong",
  "Tampered",
  "Superseded",
  "Left",
  "Stopped",
  "Away"
] as const

const sentences: Record<(typeof reasons)[number], string> = {
  Ended: "the peer closed the control connection",
  Reset: "the control connection broke",
  Silent: "the peer has been silent for too long",
  LineTooLong: `the peer sent a line longer than ${8 * 1024} bytes`,
  Tampered: "a signal was taken out of the control connection on its way",
  Superseded: "the peer came back by another control connection",
  Left: "the peer left",
  Stopped: "this side leaves",
  Away: "the peer did not come back to the session of before"
}

/** A control connection is over. The session may go on with another one. */
export class ControlLost extends Schema.TaggedError<ControlLost>()("ControlLost", {
  reason: Schema.Literal(...reasons)
}) {
  override get message(): string {
    return sentences[this.reason]
  }
}

/** The session is over. Terminal: the peer left, or did not come back in time after `reason`. */
export class SignalBusClosed extends Schema.TaggedError<SignalBusClosed>()("SignalBusClosed", {
  reason: Schema.Literal(...reasons)
}) {
  override get message(): string {
    return sentences[this.reason]
  }
}

/** The other side did not take a launch, as far as this one knows; its pool connection is nobody's any more. */
export class LaunchRefused extends Schema.TaggedError<LaunchRefused>()("LaunchRefused", {
  reason: Schema.Literal("Late", "Over")
}) {
  override get message(): string {
    return this.reason === "Late"
      ? "the other side did not acknowledge the launch in time"
      : "the session was over before the other side acknowledged the launch"
  }
}

/** A signal for whoever runs the session: the bus sees to the others itself. */
export type Delivered = Extract<
  Signal.Signal,
  Signal.Demand | Signal.Flush | Signal.Keep | Signal.Launch | Signal.Terms
>

/** A control connection on which both sides have proved themselves. */
export interface Line {
  readonly connection: Connection
  readonly dialect: Dialect
  /** The highest number of ours that the peer has handled: on the first connection of a session none, the default. */
  readonly received?: number | undefined
}

/** What a bus leaves to the one that goes on with its session. */
export interface Snapshot {
  readonly outbox: Outbox.Snapshot
  /** The highest number of the peer's that was handled. */
  readonly received: number
}

export class SignalBus extends Context.Tag("nodepass/SignalBus")<
  SignalBus,
  {
    /** Has the peer told, now or on its next control connection; replaces one of its kind that was not said yet. */
    readonly send: (signal: Signal.Demand | Signal.Flush | Signal.Keep) => Effect.Effect<void, SignalBusClosed>
    /**
     * Has the peer launch; waits while it is away, and while the outbox is full, in order of arrival.
     *
     * From then on the outbox has it until the peer acknowledges it or `scope` closes. `refused` is called if neither
     * comes to pass within `poolGetTimeout`, or the session ends before; that is counted and logged.
     */
    readonly launch: (
      launch: Signal.Launch,
      refused: Effect.Effect<void>
    ) => Effect.Effect<void, SignalBusClosed, Scope.Scope>
    /**
     * Handles the peer's signals until the session is over, and fails then. Run it once.
     *
     * Signals are handled in order of arrival, one at a time: what takes long is for a fiber of the handler's own.
     */
    readonly run: <R>(
      handler: (signal: Delivered) => Effect.Effect<void, never, R>
    ) => Effect.Effect<never, SignalBusClosed, R>
    /** Speaks over this control connection from now on, in place of the one before, and says in the end why it is lost. */
    readonly attach: (line: Line) => Effect.Effect<ControlLost>
    /** Tells the peer that the session is over, if it is there, and waits for that to be on its way. */
    readonly leave: Effect.Effect<void>
    /** Whether there is a control connection. */
    readonly isAttached: () => boolean
    /** Calls back when there is one, and when there is none any more, until what this answers is called. */
    readonly watch: (listener: (attached: boolean) => void) => () => void
    /** The highest number of the peer's that was handled, `-1` before the first. */
    readonly received: () => number
    /** The time the last ping took, or `None` before the first answer. */
    readonly roundTrip: Effect.Effect<Option.Option<Duration.Duration>>
    /** Pings the peer now; whether it said anything in that time. */
    readonly probe: (within: Duration.DurationInput) => Effect.Effect<boolean>
    /**
     * Goes no further, without a word to the peer: it gives up its control connection and its launches, and says what
     * another bus needs to go on in its place.
     */
    readonly suspend: Effect.Effect<Snapshot>
    /** Launches that the peer has not acknowledged. */
    readonly waiting: Effect.Effect<number>
  }
>() {}

/** Bytes in a line, at most. */
const lineLimit = 8 * 1024
/** Signals handled before they are acknowledged with nothing to ride on, and the longest wait for that. */
const acknowledgeAfter = 64
const sweepMillis = 500
/** A signal is said again when it has not been acknowledged for so long, and two round trips. */
const repeatMillis = 2000
/** Signals said under one key, at most, and some more. */
const rotateAfter = 65_536
/** How long telling the peer that we leave may take. */
const farewell = Duration.seconds(1)

/** A control connection in use. */
interface Attached {
  readonly line: Line
  readonly lost: Deferred.Deferred<ControlLost>
}

/** A signal that waits to be handled. */
interface Arrived {
  readonly signal: Delivered
  readonly number: number | undefined
}

/** A launch that waits for the peer, or for room. */
interface Waiter {
  readonly admit: () => void
  readonly fail: (error: SignalBusClosed) => void
}

/** One that goes on where another was suspended waits for its peer as if that had just been lost. */
export const makeWith = (
  saved: Option.Option<Snapshot>
): Effect.Effect<SignalBus["Type"], never, Deadlines | EventBus | Refusals | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock
    const deadlines = yield* Deadlines
    const events = yield* EventBus
    const refusals = yield* Refusals
    const { keyLifetime, poolGetTimeout, reportInterval, resumeGrace, signalQueue } = yield* Settings
    // Steady, unlike the time of day.
    const millis = () => Number(clock.unsafeCurrentTimeNanos() / 1000n) / 1000
    const interval = Duration.toMillis(reportInterval)
    const lifetime = Duration.toMillis(keyLifetime)
    const patience = Duration.toMillis(poolGetTimeout)
    const sweep = Math.min(sweepMillis, interval / 4)
    const inbound = yield* Effect.acquireRelease(Queue.bounded<Arrived>(signalQueue), Queue.shutdown)
    const closed = yield* Deferred.make<never, SignalBusClosed>()
    const left = yield* Deferred.make<void>()
    const before = Option.getOrUndefined(saved)
    const outbox = Outbox.make({ limit: signalQueue, saved: before?.outbox })
    let received = before?.received ?? -1
    const isNew = ReplayWindow.make(received + 1)
    let acknowledged = received
    let over: SignalBusClosed | undefined
    let attached: Attached | undefined
    let awaited: () => void = () => undefined
    let liveness = Liveness.make({ interval, now: millis() })
    let judged: Liveness.State = "alive"
    let pinged = 0
    let roundTrip = Option.none<Duration.Duration>()
    let probes: ReadonlyArray<Deferred.Deferred<boolean>> = []
    let writer: (() => void) | undefined
    const waiters = new Set<Waiter>()
    const watchers = new Set<(attached: boolean) => void>()
    const tell = (attached: boolean) => {
      for (const watcher of watchers) watcher(attached)
    }
    const refused: Array<{
      readonly error: LaunchRefused
      readonly launch: Signal.Launch
      readonly run: Effect.Effect<void>
    }> = []

    const wake = () => writer?.()
    /** Lets launches in that waited for room, or for the peer. */
    const admit = () => {
      for (const waiter of waiters) {
        if (attached === undefined || !outbox.hasRoom()) return
        waiters.delete(waiter)
        waiter.admit()
      }
    }

    const lose = (here: Attached, reason: ControlLost["reason"]) =>
      Effect.asVoid(Deferred.succeed(here.lost, new ControlLost({ reason })))

    /** Whoever was refused, told and counted. */
    const settle = Effect.suspend(() =>
      Effect.forEach(
        refused.splice(0),
        ({ error, launch, run }) =>
          Effect.zipRight(run, refusals.count("launch", error, { details: { visitor: String(launch.visitor) } })),
        { discard: true }
      )
    )

    const close = (reason: SignalBusClosed["reason"]): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (over !== undefined) return Effect.void
        const error = (over = new SignalBusClosed({ reason }))
        const here = attached
        awaited()
        for (const waiter of waiters) waiter.fail(error)
        waiters.clear()
        tell(false)
        return Effect.flatMap(Deferred.isDone(left), (left) => {
          // What was said before the farewell is on its way in front of it.
          outbox.close({ said: !left })
          const lost = here === undefined ? Effect.void : lose(here, reason)
          const told = events.publish(() => ({ _tag: "SessionLost", why: error.message, over: true }))
          return Effect.all([settle, told, Deferred.fail(closed, error), lost], { discard: true })
        })
      })
    yield* Effect.addFinalizer(() => close("Stopped"))
    if (before !== undefined) awaited = deadlines.after(resumeGrace, close("Away"))

    const ping = Effect.sync(() => {
      pinged = millis()
      outbox.announce("Ping")
      wake()
    })

    const receive = (here: Attached, signal: Signal.Signal, number: number | undefined): Effect.Effect<unknown> => {
      switch (signal._tag) {
        case "Ping":
          return Effect.sync(() => {
            outbox.announce("Pong")
            wake()
          })
        case "Pong":
          return Effect.sync(() => {
            const now = millis()
            liveness.answered(now)
            roundTrip = Option.some(Duration.millis(now - pinged))
          })
        case "Ack":
        case "Rotation":
          return Effect.void
        case "Bye":
          return Effect.zipRight(lose(here, "Left"), close("Left"))
        case "Unknown":
          return Effect.logDebug("a signal of a kind not known here was passed over").pipe(
            Effect.annotateLogs({ kind: signal.kind })
          )
        default:
          return Queue.offer(inbound, { signal, number })
      }
    }

    const hear = (here: Attached, heard: Heard): Effect.Effect<void> =>
      Effect.gen(function* () {
        if (heard.acknowledged !== undefined && outbox.acknowledge(heard.acknowledged - 1)) {
          admit()
          // What waited for others to be acknowledged may be said now.
          wake()
        }
        for (const [index, signal] of heard.signals.entries()) {
          const number = heard.number === undefined ? undefined : heard.number + index
          if (number === undefined || isNew(number)) yield* receive(here, signal, number)
          // Whoever says it again has not heard that it was handled.
          else acknowledged = Math.min(acknowledged, received - 1)
        }
      })

    /** What is acknowledged was handled: what waits here when the session ends is the peer's to refuse. */
    const settled = (number: number | undefined) => {
      if (number !== undefined) received = Math.max(received, number)
      if (received - acknowledged < acknowledgeAfter) return
      outbox.announce("Ack")
      wake()
    }

    const listen = (here: Attached): Effect.Effect<void> =>
      Effect.gen(function* () {
        const { connection, dialect } = here.line
        const decoder = Frame.makeDecoder({ limit: lineLimit })
        while (true) {
          const chunk = yield* Effect.option(connection.read)
          if (Option.isNone(chunk)) return yield* lose(here, "Reset")
          if (Option.isNone(chunk.value)) return yield* lose(here, "Ended")
          const lines = decoder.push(chunk.value.value)
          if (Either.isLeft(lines)) return yield* lose(here, "LineTooLong")
          for (const line of lines.right) {
            if (attached !== here) return
            const said = dialect.decode(line)
            if (Either.isRight(said)) {
              liveness.heard(millis())
              for (const probe of probes) yield* Deferred.succeed(probe, true)
              for (const heard of said.right) yield* hear(here, heard)
            } else if (said.left.reason === "Lost") return yield* lose(here, "Tampered")
            else yield* refusals.count("signal", said.left, { details: { peer: String(connection.remote) } })
          }
        }
      })

    const something = Effect.async<void>((resume) => {
      const wakes = () => {
        writer = undefined
        resume(Effect.void)
      }
      writer = wakes
      return Effect.sync(() => {
        if (writer === wakes) writer = undefined
      })
    })
    const write = (here: Attached): Effect.Effect<void> => {
      const { connection, dialect } = here.line
      let rotated = { at: millis(), said: 0 }
      let said = 0
      const rotate = (now: number): Effect.Effect<void, TransportError> => {
        rotated = { at: now, said }
        const told = events.publish(() => ({ _tag: "Rotated", keys: "session" }))
        return Effect.zipRight(connection.write(dialect.rotate()), told)
      }
      const step: Effect.Effect<void, TransportError> = Effect.suspend(() => {
        // Its place was taken: what it said now would be missing from what the other one says.
        if (attached !== here) return Effect.never
        const now = millis()
        if (now - rotated.at >= lifetime || said - rotated.said >= rotateAfter) return rotate(now)
        const signals = outbox.take(now)
        if (signals.length === 0) return something
        said += signals.length
        const news = received === acknowledged ? undefined : received + 1
        acknowledged = received
        const written = connection.write(dialect.encode({ signals, acknowledged: news }))
        return signals.at(-1)?.signal._tag === "Bye"
          ? Effect.zipRight(Effect.zipRight(written, connection.end), Deferred.succeed(left, undefined))
          : written
      })
      return Effect.catchAll(Effect.forever(step), () => lose(here, "Reset"))
    }

    /** Looks after everything that time alone brings about. */
    let looked = millis()
    const look = Effect.suspend(() => {
      const now = millis()
      // This process was stopped, or busy: that was no silence of the peer's.
      const late = now - looked - sweep
      if (late > sweep) liveness.excuse(late)
      looked = now
      outbox.expire(now)
      const trip = Option.match(roundTrip, { onNone: () => 0, onSome: Duration.toMillis })
      if (attached !== undefined && outbox.repeat(now - repeatMillis - 2 * trip) > 0) wake()
      if (received !== acknowledged) {
        outbox.announce("Ack")
        wake()
      }
      admit()
      return Effect.zipRight(settle, judge(now))
    })
    const judge = (now: number): Effect.Effect<void> => {
      const here = attached
      const state = liveness.state(now)
      if (here === undefined || state === judged) return Effect.void
      judged = state
      const details = {
        peer: String(here.line.connection.remote),
        silent: `${Math.round(liveness.silence(now))}ms`,
        phi: liveness.phi(now).toFixed(1)
      }
      const say = (text: string) => Effect.annotateLogs(Effect.logInfo(text), details)
      switch (state) {
        case "alive":
          return say("the peer answers again")
        case "suspect":
          return say("the peer is silent for longer than it ever was")
        case "lost":
          return lose(here, "Silent")
      }
    }

    return SignalBus.of({
      send: (signal) =>
        Effect.suspend(() => {
          if (over !== undefined) return Effect.fail(over)
          outbox.put(signal)
          wake()
          return Effect.void
        }),
      launch: (launch, run) =>
        Effect.scopeWith((scope) => {
          let held: Outbox.Held | undefined
          const enter = () => {
            held = outbox.launch(launch, {
              due: millis() + patience,
              refuse: (reason) => refused.push({ error: new LaunchRefused({ reason }), launch, run })
            })
            wake()
          }
          const withdraw = Effect.sync(() => {
            if (held !== undefined) outbox.withdraw(held)
          })
          const begin = Effect.suspend(() => {
            if (over !== undefined) return Effect.fail(over)
            if (attached !== undefined && outbox.hasRoom() && waiters.size === 0) {
              enter()
              return Effect.void
            }
            return Effect.async<void, SignalBusClosed>((resume) => {
              const waiter: Waiter = {
                admit: () => {
                  enter()
                  resume(Effect.void)
                },
                fail: (error) => resume(Effect.fail(error))
              }
              waiters.add(waiter)
              return Effect.sync(() => waiters.delete(waiter))
            })
          })
          return Effect.zipRight(Scope.addFinalizer(scope, withdraw), begin)
        }),
      run: (handler) =>
        Effect.gen(function* () {
          const dispatch = Effect.flatMap(Queue.take(inbound), ({ number, signal }) =>
            Effect.map(handler(signal), () => settled(number))
          )
          const sweeping = Effect.repeat(look, Schedule.spaced(Duration.millis(sweep)))
          const pinging = Effect.repeat(ping, Schedule.spaced(reportInterval))
          yield* Effect.forEach([sweeping, pinging, Effect.forever(dispatch)], Effect.forkScoped, { discard: true })
          return yield* Deferred.await(closed)
        }).pipe(Effect.scoped),
      attach: (line) =>
        Effect.gen(function* () {
          if (over !== undefined) return new ControlLost({ reason: over.reason })
          const here: Attached = { line, lost: yield* Deferred.make<ControlLost>() }
          if (attached !== undefined) yield* lose(attached, "Superseded")
          awaited()
          attached = here
          liveness = Liveness.make({ interval, now: millis() })
          judged = "alive"
          outbox.acknowledge(line.received ?? -1)
          outbox.replay()
          admit()
          tell(true)
          const peer = line.connection.remote
          yield* events.publish(() => ({ _tag: "SessionUp", peer, resumed: line.received !== undefined }))
          yield* ping
          yield* Effect.forEach([listen(here), write(here)], Effect.forkScoped, { discard: true })
          return yield* Deferred.await(here.lost)
        }).pipe(
          Effect.scoped,
          Effect.tap(({ message, reason }) =>
            Effect.suspend(() => {
              if (attached?.line !== line) return Effect.void
              attached = undefined
              awaited = deadlines.after(resumeGrace, close(reason))
              tell(false)
              return over === undefined
                ? events.publish(() => ({ _tag: "SessionLost", why: message, over: false }))
                : Effect.void
            })
          )
        ),
      leave: Effect.suspend(() => {
        if (attached === undefined || over !== undefined) return Effect.void
        outbox.announce("Bye")
        wake()
        // A finalizer waits here, uninterruptible.
        return Effect.ignore(Effect.timeoutOption(Effect.interruptible(Deferred.await(left)), farewell))
      }),
      suspend: Effect.suspend(() => {
        const kept = { outbox: outbox.saved(), received }
        const ended = attached === undefined ? Effect.void : Effect.ignore(attached.line.connection.end)
        // What was said is on its way, as before a farewell.
        return Deferred.succeed(left, undefined).pipe(
          Effect.zipRight(Effect.timeoutOption(Effect.interruptible(ended), farewell)),
          Effect.zipRight(close("Stopped")),
          Effect.as(kept)
        )
      }),
      isAttached: () => attached !== undefined && over === undefined,
      watch: (listener) => {
        watchers.add(listener)
        return () => watchers.delete(listener)
      },
      received: () => received,
      roundTrip: Effect.sync(() => roundTrip),
      probe: (within) =>
        Effect.gen(function* () {
          const answered = yield* Deferred.make<boolean>()
          probes = [...probes, answered]
          yield* ping
          const alive = yield* Effect.timeoutTo(Deferred.await(answered), {
            duration: within,
            onSuccess: (alive) => alive,
            onTimeout: () => false
          })
          probes = probes.filter((probe) => probe !== answered)
          return alive
        }),
      waiting: Effect.sync(() => outbox.size())
    })
  })

export const make = makeWith(Option.none())

export const layerWith = (
  saved: Option.Option<Snapshot>
): Layer.Layer<SignalBus, never, Deadlines | EventBus | Refusals | Settings> => Layer.scoped(SignalBus, makeWith(saved))

export const layer = layerWith(Option.none())
