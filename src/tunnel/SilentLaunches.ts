/**
 * Launches whose pool connection carries nothing. Both sides compare what they have sent and received, over the control
 * connection; a connection that loses bytes is given up, and its visitor launched again on another one.
 *
 * No visitor is served twice: only the side of the target undoes a launch, and only while it has received nothing from the
 * visitor. Source: docs/protocol.md §Silent launches.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Deadlines } from "../core/Deadlines.js"
import { Refusals } from "../core/Refusals.js"
import { withoutStack } from "../core/WithoutStack.js"
import { DatagramRelay } from "../relay/DatagramRelay.js"
import { Relay } from "../relay/Relay.js"
import { SignalBus } from "../signal/SignalBus.js"
import type { Connection } from "../transport/Transport.js"
import * as Signal from "../wire/Signal.js"

/** A visitor was reset, because its pool connection carried nothing and not all that it had sent was kept. */
export class VisitorLost extends withoutStack(Schema.TaggedError<VisitorLost>()("VisitorLost", {})) {
  override get message(): string {
    return "a pool connection carried nothing: its visitor was reset, since not all that it had sent was kept"
  }
}

export interface SilentLaunches {
  /** The pool connection of this launch is in use until the scope closes. */
  readonly add: (
    launch: Pick<Signal.Launch, "id" | "protocol">,
    connection: Connection
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Sends the peer a `Silent` signal about this launch a few times, while its connection receives nothing. */
  readonly watch: (id: Signal.ConnectionId) => Effect.Effect<void>
  /** On the side of the target: undoes the launch if its connection is dead. */
  readonly onSilent: (signal: Signal.Silent) => Effect.Effect<void>
  /** On the side of the visitor: the exchange ends as `FarSilent`. If that is not possible, the visitor is reset. */
  readonly onWithdrawn: (signal: Signal.Withdrawn) => Effect.Effect<void>
  /** On the side of the target: nothing of this launch has reached a target, or will. */
  readonly withdraw: (id: Signal.ConnectionId) => Effect.Effect<void>
  /** On the side of the target: the launch has failed. A reset on a dead connection does not arrive. */
  readonly refuse: (id: Signal.ConnectionId, when: "now" | "later") => Effect.Effect<void>
  /** Resets the connection of every launch. */
  readonly abandon: Effect.Effect<void>
  /** On the side of the visitor: resets it, unless something has come from the connection. */
  readonly onRefused: (signal: Signal.Refused) => Effect.Effect<void>
}

export interface Options {
  /** Closes idle pool connections, which may be dead as well. */
  readonly flush: Effect.Effect<void>
}

export const make = ({
  flush
}: Options): Effect.Effect<SilentLaunches, never, DatagramRelay | Deadlines | Refusals | Relay | SignalBus> =>
  Effect.gen(function* () {
    const bus = yield* SignalBus
    const refusals = yield* Refusals
    const deadlines = yield* Deadlines
    const relays = { tcp: yield* Relay, udp: yield* DatagramRelay }
    const launches = new Map<Signal.ConnectionId, Launch>()

    const ask = (id: Signal.ConnectionId, launch: Launch, delay: Duration.Duration): Effect.Effect<void> =>
      Effect.suspend(() => {
        const { connection, relay, sent } = launch
        const progress = relay.progress(connection)
        if (progress === undefined || progress.received || launches.get(id) !== launch) return Effect.void
        launch.sent = progress.sent
        if (launch.asked++ === maxQuestions) return Effect.sync(() => relay.commit(connection))
        deadlines.after(delay, ask(id, launch, Duration.times(delay, 2)))
        return Effect.ignore(bus.send(new Signal.Silent({ id, sent })))
      })

    const withdraw = (id: Signal.ConnectionId) => Effect.ignore(bus.send(new Signal.Withdrawn({ id })))

    return {
      add: ({ id, protocol }, connection) =>
        Effect.scopeWith((scope) => {
          const launch: Launch = { connection, relay: relays[protocol], sent: false, asked: 0, unanswered: 0 }
          launches.set(id, launch)
          return Scope.addFinalizer(
            scope,
            Effect.sync(() => launches.get(id) === launch && launches.delete(id))
          )
        }),
      watch: (id) =>
        Effect.map(bus.roundTrip, (roundTrip) => {
          const launch = launches.get(id)
          if (launch === undefined) return
          let delay = shortestDelay
          // Few different delays: each has a queue.
          while (Option.exists(roundTrip, Duration.greaterThan(delay))) delay = Duration.times(delay, 2)
          deadlines.after(delay, ask(id, launch, delay))
        }),
      onSilent: ({ id, sent }) =>
        Effect.suspend(() => {
          const launch = launches.get(id)
          const progress = launch?.relay.progress(launch.connection)
          if (launch === undefined || progress === undefined || progress.received) return Effect.void
          // The visitor's bytes were sent before the previous `Silent`. That has arrived, and they have not.
          // If only the target has sent, its bytes must be missing for eight round trips: a visitor that has received
          // them after all has to be reset.
          const isDead = sent || launch.unanswered >= 3
          if (progress.sent) launch.unanswered++
          if (!isDead) return Effect.void
          return Effect.flatMap(launch.relay.undo(launch.connection), (undone) => (undone ? withdraw(id) : Effect.void))
        }),
      onWithdrawn: ({ id }) =>
        Effect.suspend(() => {
          const launch = launches.get(id)
          if (launch === undefined) return Effect.void
          const { connection, relay } = launch
          const details = { peer: String(connection.remote) }
          return Effect.flatMap(relay.undo(connection), (undone) =>
            undone
              ? Effect.zipRight(
                  flush,
                  Effect.annotateLogs(
                    Effect.logInfo(
                      "a pool connection carried nothing: launching its visitor on another one, and replacing the idle ones"
                    ),
                    details
                  )
                )
              : Effect.zipRight(connection.reset, refusals.count("launch", new VisitorLost(), { details }))
          )
        }),
      withdraw,
      abandon: Effect.suspend(() =>
        Effect.forEach(Array.from(launches.values()), ({ connection }) => connection.reset, { discard: true })
      ),
      refuse: (id, when) => {
        const refuse = Effect.ignore(bus.send(new Signal.Refused({ id })))
        return when === "now" ? refuse : Effect.sync(() => void deadlines.after(resetTime, refuse))
      },
      onRefused: ({ id }) =>
        Effect.suspend(() => {
          const launch = launches.get(id)
          if (launch === undefined || launch.relay.progress(launch.connection)?.received === true) return Effect.void
          return launch.connection.reset
        })
    }
  })

// internal

interface Launch {
  readonly connection: Connection
  readonly relay: Pick<Relay["Type"], "commit" | "progress" | "undo">
  /** On the side of the visitor: something had been passed on to the connection at the last question. */
  sent: boolean
  /** Questions so far. */
  asked: number
  /** On the side of the target: questions since something was passed on to the connection. */
  unanswered: number
}

/** A question is asked after a round trip, but not sooner than this: a lost segment is sent again after 200 ms. */
const shortestDelay = Duration.millis(100)
const maxQuestions = 8
/** Within this time a reset arrives, behind the bytes that were sent before it, on a connection that is alive. */
const resetTime = Duration.seconds(2)
