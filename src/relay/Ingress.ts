/**
 * Where TCP visitors come in: each takes a slot, is given a way to the target, and is relayed until it leaves.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Address } from "../core/Address.js"
import { Deadlines } from "../core/Deadlines.js"
import * as Frame from "../wire/Frame.js"
import * as ProxyHeader from "../wire/ProxyHeader.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import { Relay } from "./Relay.js"
import { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import { Slots } from "./Slots.js"
import * as Transport from "../transport/Transport.js"

/** A visitor did not say first whom it comes for, though `proxy-in` is on. */
export class NoProxyHeader extends Schema.TaggedError<NoProxyHeader>()("NoProxyHeader", {
  reason: Schema.Literal("Other", "Ended", "Late"),
  peer: Address
}) {
  override get message(): string {
    const instead = { Other: "sent something else", Ended: "left", Late: "sent nothing in time" }[this.reason]
    return `${String(this.peer)} ${instead} where proxy-in=1 expects a PROXY protocol header`
  }
}

export interface Options<E extends RefusalError> {
  readonly listener: Transport.Listener
  /** Opens the way to the target for a visitor: through the tunnel, or straight to it. */
  readonly open: (visit: Visit) => Effect.Effect<Transport.Connection, E, Scope.Scope>
  /** What a failure of `open` counts as. */
  readonly refusal: Kind
  /** Whether visitors come with a PROXY protocol header; one without is refused. */
  readonly proxyIn: boolean
  /** Visitors whose way is being opened, at most; more are not accepted before. Defaults to `1024`. */
  readonly opening?: number | undefined
}

/** The kernel's backlog holds the others. */
const openingAtOnce = 1024

/**
 * Serves visitors for ever. One who cannot be served is reset at once, counted and logged; none touches another.
 *
 * Visitors live in the caller's scope: interrupting this stops accepting and harms nobody who is being served.
 */
export const serve = <E extends RefusalError>({
  listener,
  open,
  opening = openingAtOnce,
  proxyIn,
  refusal
}: Options<E>): Effect.Effect<never, never, Deadlines | Refusals | Relay | Scope.Scope | Settings | Slots> =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const refusals = yield* Refusals
    const relay = yield* Relay
    const slots = yield* Slots
    const { handshakeTimeout } = yield* Settings

    const visitOf = (visitor: Transport.Connection): Effect.Effect<Visit, NoProxyHeader> => {
      const own: Visit = { protocol: "tcp", visitor: visitor.remote, entry: Option.some(visitor.local) }
      if (!proxyIn) return Effect.succeed(own)
      return deadlines
        .limit(readHeader(visitor), {
          duration: handshakeTimeout,
          onTimeout: () => new NoProxyHeader({ reason: "Late", peer: visitor.remote })
        })
        .pipe(
          Effect.map(
            Option.match({
              onNone: () => own,
              onSome: ({ destination, source }) => ({ ...own, visitor: source, entry: Option.some(destination) })
            })
          )
        )
    }

    let accepted = 0
    const room = yield* Effect.makeLatch(true)
    /** Accepts nobody while so many wait for their way. */
    const accept: Transport.Listener["accept"] = Effect.suspend(() => {
      if (accepted >= opening) return Effect.zipRight(room.await, accept)
      return Effect.map(listener.accept, (visitor) => {
        if (++accepted >= opening) room.unsafeClose()
        return visitor
      })
    })
    const enter = () => {
      if (accepted-- === opening) room.unsafeOpen()
    }

    const serveOne = (visitor: Transport.Connection) => {
      let waits = true
      const entered = Effect.sync(() => {
        if (waits) enter()
        waits = false
      })
      const details = { visitor: String(visitor.remote) }
      const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, { details })
      // Everything of the visit is in the scope of the visitor's connection.
      const opened = Effect.gen(function* () {
        yield* Effect.tapError(slots.acquire, count("slot"))
        const visit = yield* Effect.tapError(visitOf(visitor), count("header"))
        const far = yield* Effect.tapError(open(visit), count(refusal))
        yield* entered
        return far
      })
      // What stands around the exchange is kept as long as the visitor: as little as can be.
      return Effect.flatMap(opened, (far) => relay.exchange(visitor, far)).pipe(
        Effect.onError(() => Effect.zipRight(entered, visitor.reset)),
        Effect.catchAll((error) =>
          Effect.logDebug("visit ended early").pipe(Effect.annotateLogs({ ...details, why: error.message }))
        )
      )
    }

    return yield* Transport.serve({ ...listener, accept }, serveOne)
  })

// internal

/** Reads the header and leaves what follows it on the connection. */
const readHeader = (visitor: Transport.Connection) => {
  const refuse = (reason: NoProxyHeader["reason"]) => new NoProxyHeader({ reason, peer: visitor.remote })
  const from = (held: Uint8Array): Effect.Effect<Option.Option<ProxyHeader.Endpoints>, NoProxyHeader> =>
    Effect.flatMap(
      Effect.mapError(visitor.read, () => refuse("Ended")),
      (chunk) => {
        if (Option.isNone(chunk)) return refuse("Ended")
        const bytes = held.length === 0 ? chunk.value : Frame.concat([held, chunk.value])
        const decoded = ProxyHeader.decode(bytes)
        if (decoded._tag === "Invalid") return refuse("Other")
        if (decoded._tag === "Incomplete") return from(bytes)
        if (decoded.length < bytes.length) visitor.unread(bytes.subarray(decoded.length))
        return Effect.succeed(decoded.endpoints)
      }
    )
  return from(new Uint8Array(0))
}
