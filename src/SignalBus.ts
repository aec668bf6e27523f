/**
 * The control channel of one session: signals out through a bounded queue, signals in to a handler, and a ping each
 * report interval that tells whether the peer is there and how far away.
 *
 * When the peer outruns the handler its signals wait in a queue, and when that is full we stop reading, so that TCP
 * slows it down; nothing is dropped and nothing grows.
 */
import * as Clock from "effect/Clock"
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
import type * as Scope from "effect/Scope"
import { Address } from "./Address.js"
import type { Dialect } from "./Dialect.js"
import * as Frame from "./Frame.js"
import { Refusals } from "./Refusals.js"
import { Settings } from "./Settings.js"
import * as Signal from "./Signal.js"
import type { Connection } from "./Transport.js"

const sentences = {
  Ended: "the peer closed the control connection",
  Reset: "the control connection broke",
  Silent: "the peer has been silent for two report intervals, and a second at least",
  LineTooLong: `the peer sent a line longer than ${8 * 1024} bytes`,
  Tampered: "a signal was taken out of the control connection on its way"
} as const

/** The control channel is over. Terminal: the next session opens a new one. */
export class SignalBusClosed extends Schema.TaggedError<SignalBusClosed>()("SignalBusClosed", {
  reason: Schema.Literal("Ended", "Reset", "Silent", "LineTooLong", "Tampered"),
  peer: Address
}) {
  override get message(): string {
    return sentences[this.reason]
  }
}

/** A signal for whoever runs the session: pings and pongs are answered by the bus itself. */
export type Delivered = Exclude<Signal.Signal, Signal.Ping | Signal.Pong | Signal.Unknown>

export class SignalBus extends Context.Tag("nodepass/SignalBus")<
  SignalBus,
  {
    /** Queues a signal for `run` to write, waiting while the queue is full. */
    readonly send: (signal: Signal.Signal) => Effect.Effect<void, SignalBusClosed>
    /**
     * Reads, writes and pings until the channel is over, and fails then. Run it once.
     *
     * Signals are handled in order of arrival, one at a time: what takes long is for a fiber of the handler's own.
     */
    readonly run: <R>(
      handler: (signal: Delivered) => Effect.Effect<void, never, R>
    ) => Effect.Effect<never, SignalBusClosed, R>
    /** The time the last ping took, or `None` before the first answer. */
    readonly roundTrip: Effect.Effect<Option.Option<Duration.Duration>>
    /** Pings the peer now; whether it said anything in that time. */
    readonly probe: (within: Duration.DurationInput) => Effect.Effect<boolean>
  }
>() {}

export interface Options {
  readonly connection: Connection
  readonly dialect: Dialect
}

/** Bytes in a line, at most. */
const lineLimit = 8 * 1024
/** Signals in one write, at most: some 8 KiB. */
const batch = 64

export const make = ({
  connection,
  dialect
}: Options): Effect.Effect<SignalBus["Type"], never, Refusals | Scope.Scope | Settings> =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const { reportInterval, signalQueue } = yield* Settings
    const peer = connection.remote
    // A busy machine says nothing for some hundred milliseconds now and then.
    const patienceMillis = Math.max(2 * Duration.toMillis(reportInterval), 1000)
    const outbound = yield* Effect.acquireRelease(Queue.bounded<Signal.Signal>(signalQueue), Queue.shutdown)
    const inbound = yield* Effect.acquireRelease(Queue.bounded<Delivered>(signalQueue), Queue.shutdown)
    const closed = yield* Deferred.make<never, SignalBusClosed>()
    let over: SignalBusClosed | undefined
    const close = (reason: SignalBusClosed["reason"]) =>
      Effect.suspend(() => Deferred.fail(closed, (over ??= new SignalBusClosed({ reason, peer }))))

    let pinged = 0n
    let heard = yield* Clock.currentTimeMillis
    let roundTrip = Option.none<Duration.Duration>()
    let probes: ReadonlyArray<Deferred.Deferred<boolean>> = []

    const ping = Effect.flatMap(Clock.currentTimeNanos, (now) => {
      pinged = now
      return Queue.offer(outbound, new Signal.Ping())
    })

    const receive = (signal: Signal.Signal): Effect.Effect<unknown> => {
      switch (signal._tag) {
        case "Ping":
          // Never waits, or two full channels would wait for each other; what fills this one tells the peer as much.
          return Effect.sync(() => outbound.unsafeOffer(new Signal.Pong()))
        case "Pong":
          return Effect.map(Clock.currentTimeNanos, (now) => {
            roundTrip = Option.some(Duration.nanos(now - pinged))
          })
        case "Unknown":
          return Effect.logDebug("a signal of a kind not known here was passed over").pipe(
            Effect.annotateLogs({ kind: signal.kind })
          )
        default:
          return Queue.offer(inbound, signal)
      }
    }

    const decoder = Frame.makeDecoder({ limit: lineLimit })
    const listen: Effect.Effect<void> = Effect.gen(function* () {
      while (true) {
        const chunk = yield* Effect.option(connection.read)
        if (Option.isNone(chunk)) return yield* close("Reset")
        if (Option.isNone(chunk.value)) return yield* close("Ended")
        heard = yield* Clock.currentTimeMillis
        const lines = decoder.push(chunk.value.value)
        if (Either.isLeft(lines)) return yield* close("LineTooLong")
        for (const line of lines.right) {
          const signal = dialect.decode(line)
          if (Either.isRight(signal)) {
            for (const probe of probes) yield* Deferred.succeed(probe, true)
            yield* receive(signal.right)
          } else if (signal.left.reason === "Lost") return yield* close("Tampered")
          else yield* refusals.count("signal", signal.left, { details: { peer: String(peer) } })
        }
      }
    })

    const write = Queue.takeBetween(outbound, 1, batch).pipe(
      Effect.flatMap((signals) => connection.write(dialect.encode(Array.from(signals)))),
      Effect.forever,
      Effect.catchAll(() => close("Reset"))
    )

    const watch = Effect.flatMap(Clock.currentTimeMillis, (now) =>
      now - heard >= patienceMillis ? close("Silent") : ping
    ).pipe(Effect.repeat(Schedule.spaced(reportInterval)))

    return SignalBus.of({
      send: (signal) =>
        Effect.suspend(() => {
          if (over !== undefined) return Effect.fail(over)
          // The race costs two fibers, and only a full queue needs it.
          if (outbound.unsafeOffer(signal)) return Effect.void
          return Effect.asVoid(Effect.raceFirst(Queue.offer(outbound, signal), Deferred.await(closed)))
        }),
      run: (handler) =>
        Effect.gen(function* () {
          const dispatch = Effect.flatMap(Queue.take(inbound), handler)
          yield* Effect.forEach([listen, write, watch, Effect.forever(dispatch)], Effect.forkScoped, { discard: true })
          return yield* Deferred.await(closed)
        }).pipe(Effect.scoped),
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
        })
    })
  })

export const layer = (options: Options): Layer.Layer<SignalBus, never, Refusals | Settings> =>
  Layer.scoped(SignalBus, make(options))
