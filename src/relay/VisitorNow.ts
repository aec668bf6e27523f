/**
 * Serves the visitors of a port who need no fiber: those that get a slot and a stream at once. `Ingress` serves all others.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import type { StreamHandle } from "../stream/StreamHandle.js"
import type * as Transport from "../transport/Transport.js"
import type { Visit } from "../wire/Signal.js"
import { type Attendant, logOutcome, type Outcome, Relay } from "./Relay.js"
import { Slots } from "./Slots.js"

export interface Options {
  readonly listener: Transport.Listener
  /** A stream for this visitor, opened once it is joined; `undefined` when there is none at once. */
  readonly openNow: (visit: Visit) => StreamHandle | undefined
}

/** Serves them while a fiber accepts from the listener, until the present scope closes. */
export const serve = ({ listener, openNow }: Options): Effect.Effect<void, never, Relay | Scope.Scope | Slots> =>
  Effect.gen(function* () {
    const { exchangeNow } = yield* Relay
    const { acquireNow } = yield* Slots
    const isTraced = yield* FiberRef.get(FiberRef.currentTracerEnabled)
    if (exchangeNow === undefined || listener.offer === undefined || isTraced) return
    const run = Runtime.runFork(yield* Effect.runtime())
    const parts = { openNow, run }
    const stop = listener.offer((connection) => {
      const release = acquireNow()
      if (release === undefined) return false
      const isServed = exchangeNow(connection, new VisitorNow(parts, connection, release))
      if (!isServed) release()
      return isServed
    })
    yield* Effect.addFinalizer(() => Effect.sync(stop))
  })

// internal

interface VisitorParts extends Pick<Options, "openNow"> {
  readonly run: (effect: Effect.Effect<void>) => void
}

/** A visitor without a fiber. A class, since there are many, and closures would take memory for each. */
class VisitorNow implements Attendant {
  private readonly parts: VisitorParts
  private readonly connection: Transport.OwnedByCaller
  /** Frees its slot. */
  private readonly release: () => void

  constructor(parts: VisitorParts, connection: Transport.OwnedByCaller, release: () => void) {
    this.parts = parts
    this.connection = connection
    this.release = release
  }
  open() {
    const { local, remote } = this.connection
    return this.parts.openNow({ protocol: "tcp", visitor: remote, entry: Option.some(local) })
  }
  ended(outcome: Outcome) {
    const { connection, parts } = this
    this.release()
    connection.close()
    if (outcome !== undefined) parts.run(logOutcome(outcome, String(connection.remote), "peer"))
  }
}
