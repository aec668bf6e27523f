/**
 * Serves TCP visitors: each takes a slot, gets a connection towards a target, and is relayed until one of them closes.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { constFalse } from "effect/Function"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Address } from "../core/Address.js"
import { Deadlines } from "../core/Deadlines.js"
import * as Frame from "../wire/Frame.js"
import * as ProxyHeader from "../wire/ProxyHeader.js"
import { type Kind, type RefusalError, Refusals } from "../core/Refusals.js"
import { type FarSilent, logReset, Relay, RelayIdle } from "./Relay.js"
import { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import { Slots, type SlotsFull } from "./Slots.js"
import * as Transport from "../transport/Transport.js"
import * as VisitorNow from "./VisitorNow.js"
import { withoutStack } from "../core/WithoutStack.js"

/** A visitor did not send a PROXY protocol header first, though `proxy-in` is on. */
export class NoProxyHeader extends withoutStack(
  Schema.TaggedError<NoProxyHeader>()("NoProxyHeader", {
    reason: Schema.Literal("Other", "Ended", "Late", "Full"),
    peer: Address
  })
) {
  override get message(): string {
    if (this.reason === "Full") {
      return `${String(this.peer)} sent part of a PROXY protocol header while ${maxPendingBytes} bytes of such headers wait`
    }
    const instead = {
      Other: "sent something else",
      Ended: "closed the connection",
      Late: "sent no whole header in time"
    }
    return `${String(this.peer)} ${instead[this.reason]} where proxy-in=1 expects a PROXY protocol header`
  }
}

export interface Options<E extends RefusalError> {
  readonly listener: Transport.Listener
  /** Opens a connection for a visitor: to the other side, or directly to a target. */
  readonly open: (visit: Visit) => Effect.Effect<Transport.Connection, E, Scope.Scope>
  /** As `open`, without a fiber; `undefined` when `open` has to be used. */
  readonly openNow?: VisitorNow.Options["openNow"] | undefined
  /**
   * Whether `open` waits for a client or server that is away. A visitor who ends meanwhile without having sent anything has
   * left. Defaults to never.
   */
  readonly isAway?: (() => boolean) | undefined
  /** What a failure of `open` counts as. */
  readonly refusal: Kind
  /** Whether visitors send a PROXY protocol header first; a visitor without one is refused. */
  readonly proxyIn: boolean
  /** The most visitors that wait for `open`; then none are accepted, and the backlog holds them. Defaults to `1024`. */
  readonly maxOpening?: number | undefined
}

/**
 * Serves visitors for ever. A visitor that cannot be served is reset at once, counted and logged; it affects no other.
 *
 * The caller's scope owns the visitors: interrupting this stops accepting and interrupts no visitor.
 */
export const serve = <E extends RefusalError>({
  isAway = constFalse,
  listener,
  maxOpening = 1024,
  open,
  openNow,
  proxyIn,
  refusal
}: Options<E>): Effect.Effect<never, never, Deadlines | Refusals | Relay | Scope.Scope | Settings | Slots> =>
  Effect.gen(function* () {
    const refusals = yield* Refusals
    const relay = yield* Relay
    const slots = yield* Slots
    const visitOf = yield* makeVisitOf(proxyIn)
    const whileThere = makeWhileThere(yield* Deadlines, isAway)
    const gate = yield* makeGate(listener, maxOpening)

    /** A launch that carries nothing is undone, and its visitor launched again. */
    const keep = refusal === "pool"

    const serveOne = (visitor: Transport.Connection) => {
      let opening = true
      const opened = Effect.sync(() => {
        if (opening) gate.leave()
        opening = false
      })
      const details = { visitor: String(visitor.remote) }
      const count = (kind: Kind) => (error: RefusalError) => refusals.count(kind, error, { details })
      // The scope of the visitor's connection owns all that is opened here.
      const connected = Effect.gen(function* () {
        yield* Effect.tapError(slots.acquire, count("slot"))
        const visit = yield* Effect.tapError(visitOf(visitor), count("header"))
        const far = yield* openFor(visit)
        yield* opened
        return { visit, far }
      })
      const openFor = (visit: Visit) => Effect.tapError(whileThere(visitor, open(visit)), count(refusal))
      const exchange = (visit: Visit, far: Transport.Connection): Effect.Effect<void, Failure<E>, Scope.Scope> =>
        Effect.catchAll(relay.exchange(visitor, far, { keep }), (error) =>
          error._tag === "FarSilent" && keep
            ? Effect.flatMap(openFor(visit), (far) => exchange(visit, far))
            : Effect.fail(error)
        )
      // As few steps as possible around the exchange: what they allocate lives as long as the visitor.
      return Effect.flatMap(connected, ({ far, visit }) => exchange(visit, far)).pipe(
        Effect.onError(() => Effect.zipRight(opened, visitor.reset)),
        Effect.catchAll((error) => logReset(error, { ...details, ...towards(error) }))
      )
    }

    /** The far end of the exchange: a target, or the other side of the tunnel. */
    const towards = (error: Failure<E>) =>
      error instanceof RelayIdle ? { [refusal === "target" ? "target" : "peer"]: String(error.far) } : {}

    if (openNow !== undefined && !proxyIn) yield* VisitorNow.serve({ listener, openNow })
    return yield* Transport.serve({ ...listener, accept: gate.accept }, serveOne)
  })

// internal

type Failure<E> = E | FarSilent | NoProxyHeader | RelayIdle | SlotsFull | Transport.TransportError

/**
 * Accepts while fewer than `limit` visitors have been accepted and have not left.
 *
 * A counter and a latch take 2 µs for a visitor; a `Semaphore`, whose permit an interrupted accept returns, takes 15 µs.
 */
const makeGate = ({ accept: next }: Transport.Listener, limit: number) =>
  Effect.map(Effect.makeLatch(true), (room) => {
    let accepted = 0
    const accept: Transport.Listener["accept"] = Effect.suspend(() => {
      if (accepted >= limit) return Effect.zipRight(room.await, accept)
      return Effect.map(next, (visitor) => {
        if (++accepted >= limit) room.unsafeClose()
        return visitor
      })
    })
    const leave = () => {
      if (accepted-- === limit) room.unsafeOpen()
    }
    return { accept, leave }
  })

/**
 * Runs `open` while the visitor is there: the visitor's fiber is interrupted when the visitor resets, and when it ends
 * without having sent anything while the other side is away.
 */
const makeWhileThere =
  (deadlines: Deadlines["Type"], isAway: () => boolean) =>
  <A, E, R>(visitor: Transport.Connection, open: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiberRuntime((fiber) => {
      const chunks: Array<Uint8Array> = []
      let bytes = 0
      let watching: Fiber.RuntimeFiber<void> | undefined
      let isDone = false
      const leave = Effect.sync(() => fiber.unsafeInterruptAsFork(fiber.id()))
      const receive = Effect.map(visitor.read, (chunk) => {
        bytes += Option.match(chunk, { onNone: () => 0, onSome: ({ length }) => length })
        if (Option.isSome(chunk)) chunks.push(chunk.value)
      })
      /** Reads, since a reset is seen only behind the bytes that came before it. */
      const watch = Effect.uninterruptibleMask((restore) => {
        const next: Effect.Effect<void> = Effect.flatMap(restore(Transport.readable(visitor)), (found) => {
          if (found === "Failure") return leave
          if (found === "End") return bytes === 0 && isAway() ? leave : Effect.void
          if (bytes > maxWaitingBytes) return Effect.void
          return Effect.zipRight(Effect.ignore(receive), next)
        })
        return next
      })
      // Most visitors do not wait so long, and cost a timer only.
      const cancel = deadlines.after(
        shortWait,
        Effect.suspend(() =>
          isDone ? Effect.void : Effect.map(Effect.forkDaemon(watch), (fiber) => (watching = fiber))
        )
      )
      const stop = Effect.suspend(() => {
        isDone = true
        cancel()
        if (watching === undefined) return Effect.void
        return Effect.map(Fiber.interrupt(watching), () => {
          for (const chunk of chunks.toReversed()) visitor.unread(chunk)
        })
      })
      return Effect.ensuring(open, stop)
    })

const shortWait = Duration.millis(100)
/** Bytes read of a visitor that waits; what comes later stays in the kernel. */
const maxWaitingBytes = 16 * 1024

/** Returns the visitor of a connection, by the addresses of the connection, or with `proxyIn` by those in its PROXY header. */
const makeVisitOf = (proxyIn: boolean) =>
  Effect.gen(function* () {
    const deadlines = yield* Deadlines
    const { handshakeTimeout } = yield* Settings
    const pending = { bytes: 0 }
    return (visitor: Transport.Connection): Effect.Effect<Visit, NoProxyHeader> => {
      const own: Visit = { protocol: "tcp", visitor: visitor.remote, entry: Option.some(visitor.local) }
      if (!proxyIn) return Effect.succeed(own)
      const header = deadlines.limit(readHeader(visitor, pending), {
        duration: handshakeTimeout,
        onTimeout: () => new NoProxyHeader({ reason: "Late", peer: visitor.remote })
      })
      return Effect.map(
        header,
        Option.match({
          onNone: () => own,
          onSome: ({ destination, source }) => ({ ...own, visitor: source, entry: Option.some(destination) })
        })
      )
    }
  })

/** The most bytes of unfinished PROXY headers, of all visitors of a port: 255 of the longest. */
const maxPendingBytes = 16 * 1024 * 1024

/** Reads the header; the bytes after it stay on the connection. `pending` counts the bytes that all visitors wait with. */
const readHeader = (visitor: Transport.Connection, pending: { bytes: number }) =>
  Effect.suspend(() => {
    const refuse = (reason: NoProxyHeader["reason"]) => new NoProxyHeader({ reason, peer: visitor.remote })
    const chunks: Array<Uint8Array> = []
    let received = 0
    let needed = 1
    const readOn: Effect.Effect<Option.Option<ProxyHeader.Endpoints>, NoProxyHeader> = Effect.flatMap(
      Effect.mapError(visitor.read, () => refuse("Ended")),
      (chunk) => {
        if (Option.isNone(chunk)) return refuse("Ended")
        const { length } = chunk.value
        if (pending.bytes + length > maxPendingBytes) return refuse("Full")
        pending.bytes += length
        received += length
        chunks.push(chunk.value)
        // A header that comes byte by byte is joined once.
        if (received < needed) return readOn
        const bytes = Frame.concat(chunks)
        const decoded = ProxyHeader.decode(bytes)
        if (decoded._tag === "Invalid") return refuse("Other")
        if (decoded._tag === "Incomplete") {
          chunks.splice(0, chunks.length, bytes)
          needed = decoded.bytes
          return readOn
        }
        if (decoded.length < bytes.length) visitor.unread(bytes.subarray(decoded.length))
        return Effect.succeed(decoded.endpoints)
      }
    )
    return Effect.ensuring(
      readOn,
      Effect.sync(() => {
        pending.bytes -= received
      })
    )
  })
