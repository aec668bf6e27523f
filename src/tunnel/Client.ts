/**
 * The client's side of a tunnel: it connects, keeps the pool filled, and connects again for ever.
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Address } from "../core/Address.js"
import * as Backoff from "../core/Backoff.js"
import * as ChildFiber from "../core/ChildFiber.js"
import { Crypto } from "../transport/Crypto.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { Deflate } from "../wire/Deflate.js"
import type { Egress } from "../relay/Egress.js"
import type { EventBus } from "../core/EventBus.js"
import type * as Failover from "./Failover.js"
import * as Handshake from "../wire/Handshake.js"
import * as Key from "../wire/Key.js"
import type { InForce, Keyring } from "./Keyring.js"
import { Router } from "./Router.js"
import type { Refusals } from "../core/Refusals.js"
import * as Session from "./Session.js"
import { Settings } from "../transport/Settings.js"
import type { Terms } from "../wire/Signal.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { SignalBusFactory } from "../signal/SignalBusFactory.js"
import { PoolFactory } from "../pool/PoolFactory.js"
import type { PoolPolicy } from "../pool/PoolPolicy.js"
import type { TlsMode } from "../core/TlsMode.js"
import type { TlsError, Trust } from "../transport/Tls.js"
import { type Connection, Transport, TransportError } from "../transport/Transport.js"

/** Visitors are to come to this side's target, and its URL names several. */
export class SeveralTargets extends Schema.TaggedError<SeveralTargets>()("SeveralTargets", {}) {
  override get message(): string {
    return "the server has visitors come to this side, which then takes one target, and the URL names several"
  }
}

export interface Options {
  /** The server's tunnel address. */
  readonly address: Address
  /** Its place among several servers, the preferred being `0`. */
  readonly rank: number
  /** Whether there are others: who is served through this one is then reset when it is given up for dead. */
  readonly isOneOfSeveral: boolean
  /** Told what becomes of it. */
  readonly tell: (outcome: Failover.Outcome) => void
  readonly keyring: Keyring
  /** The weakest mode that the server may secure data connections with. */
  readonly tls: TlsMode
  /** PEM texts of authorities trusted besides the system's, as they are now. */
  readonly authorities: Effect.Effect<ReadonlyArray<string>>
  /** Idle pool connections at least. */
  readonly min: number
  /** Opens or closes the port for visitors, as the server's terms have it. Asked in each session. */
  readonly openPort: (visitors: "local" | "remote") => Effect.Effect<void, SeveralTargets | TransportError>
}

/** Why a control connection did not come about, or was lost, and how long it had stood if it had. */
interface Ended {
  readonly error: SeveralTargets | Handshake.HandshakeError | SignalBus.ControlLost | TlsError | TransportError
  readonly stood: Option.Option<Duration.Duration>
}

/** What shows that a session is this side's, and the tunnel key that it grew from. */
interface Proof {
  readonly key: Key.Stretched
  readonly keys: Key.SessionKeys
}

/** What outlives a control connection. */
interface Standing {
  /** As the last tunnel key that a control connection was opened by has it. */
  readonly proof: () => Proof
  readonly renew: (proof: Proof) => void
  readonly session: Session.Session["Type"]
  readonly scope: Scope.CloseableScope
}

type Agreeing = Effect.Effect<
  { readonly connection: Connection; readonly agreement: Handshake.Agreement; readonly key: Key.Stretched },
  Handshake.HandshakeError | TransportError,
  Crypto | Deadlines | Deflate | Scope.Scope | Settings
>

/** After a control connection that stood this long the next one is tried at once. */
const healthy = Duration.seconds(1)

/** Connects for ever, waiting between attempts as `Backoff` has it, up to the service cooldown. */
export const run = (
  options: Options
): Effect.Effect<
  never,
  never,
  | Crypto
  | Deadlines
  | Deflate
  | Egress
  | EventBus
  | PoolFactory
  | PoolPolicy
  | Router
  | Refusals
  | Scope.Scope
  | Settings
  | SignalBusFactory
  | Transport
> =>
  Effect.gen(function* () {
    const crypto = yield* Crypto
    const { handshakeTimeout, resumeGrace, serviceCooldown } = yield* Settings
    const buses = yield* SignalBusFactory
    const link = yield* Router
    const pools = yield* PoolFactory
    const transport = yield* Transport
    const tunnel = yield* Effect.scope
    const client = Encoding.encodeHex(yield* crypto.randomBytes(8))
    const { address, authorities, isOneOfSeveral, keyring, min, rank, tell, tls } = options
    const server = String(address)
    let standing: Standing | undefined
    /** The control connection of now, and the newest key when it was begun. */
    let current: { readonly connection: Connection; readonly newest: Key.Stretched } | undefined
    /** It is left for one by a newer key. */
    let leaving = false

    const connect = Effect.timeoutFail(transport.connect(address), {
      duration: handshakeTimeout,
      onTimeout: () => new TransportError({ operation: "connect", reason: "TimedOut", address })
    })

    const trustIn = (terms: Terms): Effect.Effect<Option.Option<Trust>> =>
      terms.tls === "verified"
        ? Effect.map(authorities, (authorities) => Option.some({ _tag: "Authority", name: address.host, authorities }))
        : Effect.succeed(Option.map(terms.fingerprint, (fingerprint) => ({ _tag: "Pinned", fingerprint })))

    const end = (here: Standing) =>
      Effect.suspend(() => {
        if (standing === here) standing = undefined
        return Scope.close(here.scope, Exit.void)
      })

    /** The session that these terms begin, in place of the one before. */
    const begin = (first: Proof, terms: Terms) =>
      Effect.gen(function* () {
        if (standing !== undefined) yield* end(standing)
        const visitors = terms.receiver === "client" ? "local" : "remote"
        yield* options.openPort(visitors)
        const trust = yield* trustIn(terms)
        const scope = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
        let proof = first
        const keys = () => proof.keys
        return yield* Effect.gen(function* () {
          const services = yield* Layer.buildWithScope(
            Session.layer({ visitors, tracksVisitors: isOneOfSeveral }).pipe(
              Layer.provideMerge(pools.dialing({ address, keys, min, max: terms.max, visitors, trust })),
              Layer.provide(buses.layer())
            ),
            scope
          )
          const session = Context.get(services, Session.Session)
          const here: Standing = { proof: () => proof, renew: (next) => (proof = next), session, scope }
          yield* Scope.extend(link.use(session, { rank }), scope)
          yield* session.run.pipe(
            Effect.catchAll(({ reason }) =>
              reason === "Left" || reason === "Stopped" ? end(here) : Effect.zipRight(session.abandon, end(here))
            ),
            Effect.forkIn(scope)
          )
          yield* Scope.addFinalizer(scope, session.leave)
          return (standing = here)
        }).pipe(Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))))
      })

    /** Has the control connection replaced by one that is opened by the newest key. */
    const renew = ([newest]: InForce) =>
      Effect.suspend(() => {
        if (current === undefined || current.newest === newest) return Effect.void
        leaving = true
        return current.connection.reset
      })

    /** A connection on which both sides have proved themselves, by the newest key that the server knows. */
    const agree = ([key, ...others]: InForce, resume: Handshake.Resumable | undefined): Agreeing =>
      Effect.gen(function* () {
        const connection = yield* connect
        const agreement = yield* Handshake.accept(connection, { key, client, tls, resume }).pipe(
          Effect.tapError(() => connection.reset)
        )
        return { connection, agreement, key }
      }).pipe(
        Effect.catchIf(
          (error) => error._tag === "HandshakeError" && error.reason === "NoAnswer",
          (error) => (Arr.isNonEmptyReadonlyArray(others) ? agree(others, resume) : error)
        )
      )

    /** One control connection from its first byte to its end. `stands` is run once it serves. */
    const control = (stands: (what: "connected" | "connected again") => Effect.Effect<void>) =>
      Effect.gen(function* () {
        const before = standing
        const resume = before && { keys: before.proof().keys, received: before.session.received() }
        const inForce = yield* keyring.inForce
        const { agreement, connection, key } = yield* agree(inForce, resume)
        const { dialect, keys } = agreement
        current = { connection, newest: inForce[0] }
        yield* renew(yield* keyring.inForce)
        if (agreement._tag === "Resumed" && before !== undefined) {
          if (!Key.same(before.proof().key, key)) before.renew({ key, keys })
          yield* stands("connected again")
          return yield* speak(before.session, { connection, dialect, received: agreement.received })
        }
        if (agreement._tag === "Resumed") return yield* Effect.dieMessage("resumed, with nothing to resume")
        const { session } = yield* begin({ key, keys }, agreement.terms)
        yield* stands("connected")
        return yield* speak(session, { connection, dialect })
      }).pipe(Effect.merge, Effect.ensuring(Effect.sync(() => (current = undefined))), Effect.scoped)

    /** Until the control connection is lost; what stops closes it. */
    const speak = ({ attach }: Session.Session["Type"], control: SignalBus.ControlConnection) =>
      Effect.flatMap(attach(control), (lost) => (lost.reason === "Stopped" ? Effect.never : Effect.succeed(lost)))

    let said = ""
    const attempt = Effect.gen(function* () {
      let since: number | undefined
      const stands = (what: string) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          since = now
          said = ""
          tell("stands")
          return Effect.logInfo(what).pipe(Effect.annotateLogs({ server }))
        })
      const error = yield* ChildFiber.run(control(stands))
      // Who is silent for so long does not come back at once.
      const isAway = since === undefined || (error._tag === "ControlLost" && error.reason === "Silent")
      tell(isAway ? "failed" : "lost")
      const now = yield* Clock.currentTimeMillis
      return yield* Effect.fail<Ended>({
        error,
        stood: Option.map(Option.fromNullable(since), (since) => Duration.millis(now - since))
      })
    })

    /** The first of a row of like failures is said, the others whispered. */
    const say = ({ error, stood }: Ended) =>
      Effect.suspend(() => {
        if (leaving) return Effect.sync(() => (leaving = false))
        const again = said === error.message
        said = error.message
        const line =
          standing === undefined
            ? `${Option.isNone(stood) ? "no session" : "session over"}: ${error.message}`
            : `away: ${error.message}; the session waits up to ${Duration.format(resumeGrace)}`
        return (again ? Effect.logDebug(line) : Effect.logWarning(line)).pipe(Effect.annotateLogs({ server }))
      })

    yield* Effect.forkScoped(Stream.runForEach(keyring.changes, renew))

    const policy = Backoff.schedule(serviceCooldown).pipe(
      Schedule.mapInput(({ error, stood }: Ended) => ({
        healthy: Option.exists(stood, Duration.greaterThanOrEqualTo(healthy)),
        worked: Option.isSome(stood),
        refused: error._tag === "TransportError" && error.reason === "Refused"
      })),
      Schedule.tapInput(say)
    )
    return yield* Effect.orDieWith(Effect.retry(attempt, policy), () => new Error("the schedule never ends"))
  })
