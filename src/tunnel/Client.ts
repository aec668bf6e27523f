/**
 * The client's side of one server: it connects, keeps a session, and reconnects for ever.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backoff from "../core/Backoff.js"
import * as ChildFiber from "../core/ChildFiber.js"
import * as TlsMode from "../core/TlsMode.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { Crypto } from "../transport/Crypto.js"
import { Settings } from "../transport/Settings.js"
import type { TlsError } from "../transport/Tls.js"
import type { Connection, TransportError } from "../transport/Transport.js"
import type { HandshakeError } from "../wire/HandshakeError.js"
import * as Signal from "../wire/Signal.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import * as ClientHandshake from "./ClientHandshake.js"
import * as ClientSession from "./ClientSession.js"
import type * as Failover from "./Failover.js"
import type { InForce, Keyring } from "./Keyring.js"
import { Peers } from "./Peers.js"
import * as Protection from "./Protection.js"
import type * as Session from "./Session.js"
import * as SessionKeeper from "./SessionKeeper.js"
import type { SessionState } from "./SessionState.js"
import type { SeveralTargets } from "./VisitorSide.js"

export interface Options extends ClientSession.Options {
  readonly keyring: Keyring
  /** The weakest mode that the server may secure pool connections with. */
  readonly tls: TlsMode.TlsMode
  /** Whether this side serves visitors by streams. */
  readonly streams: boolean
  /** Called when the status of the server changes. */
  readonly report: (status: Failover.ServerStatus) => void
  /** Opens or closes this side's port for visitors, as the terms of each new session require. */
  readonly setVisitorSide: (visitors: "local" | "remote") => Effect.Effect<void, SeveralTargets | TransportError>
}

/** Connects for ever. The waits between attempts are those of `Backoff`, up to the service cooldown. */
export const run = (options: Options) =>
  Effect.gen(function* () {
    const { serviceCooldown } = yield* Settings
    const { report } = yield* Peers
    const name = String(options.address)
    report({ name, away: "connecting" })
    const control = yield* makeControl(options)
    yield* Effect.forkScoped(Stream.runForEach(options.keyring.changes, control.replaceOutdated))
    const policy = Backoff.schedule(serviceCooldown).pipe(
      Schedule.mapInput(({ connected, error, isRetriedAtOnce }: Ended) => ({
        healthy: isRetriedAtOnce || Option.exists(connected, Duration.greaterThanOrEqualTo(healthy)),
        worked: Option.isSome(connected),
        refused: error._tag === "TransportError" && error.reason === "Refused"
      })),
      Schedule.tapInput(({ error }: Ended) => Effect.sync(() => report({ name, away: error.message }))),
      Schedule.tapInput(yield* makeReport(options, control))
    )
    const attempts = Effect.retry(makeAttempt(options, control, { inARow: 0 }), policy)
    return yield* Effect.orDieWith(attempts, () => new Error("the schedule never ends"))
  })

// internal

/** A control connection that lasted at least this long is followed by an attempt without a wait. */
const healthy = Duration.seconds(1)

/**
 * So many attempts in a row that end without an answer are each followed by another one at once. A server that is flooded
 * drops some connections at random, and cannot say so: to everybody else it is silent.
 */
const unansweredRetries = 4

/** Why an attempt ended, and how long its control connection lasted, if it had one. */
interface Ended {
  readonly error: SeveralTargets | HandshakeError | SignalBus.ControlLost | TlsError | TransportError
  readonly connected: Option.Option<Duration.Duration>
  /** It was one of the first that ended without an answer. */
  readonly isRetriedAtOnce: boolean
}

/** Whether the server has closed the connection and sent nothing. The reset may overtake each step of the client. */
const isUnanswered = ({ error }: Pick<Ended, "error">): boolean =>
  error._tag === "HandshakeError"
    ? error.reason === "NoAnswer" || error.reason === "Ended"
    : error._tag === "TransportError" && error.operation === "connect" && error.reason === "Reset"

type Connected = "connected" | "connected again"

type Control = Effect.Effect.Success<ReturnType<typeof makeControl>>

/** The session with the server, and the control connection that it uses now. */
const makeControl = (options: Options) =>
  Effect.gen(function* () {
    const { address, keyring, streams, tls } = options
    const { randomBytes } = yield* Crypto
    const run = Encoding.encodeHex(yield* randomBytes(4))
    const salt = yield* TunnelKey.saltOf(address)
    const tunnel = yield* Effect.scope
    const keeper = yield* SessionKeeper.make(`client-${String(address)}`)
    /** The session of the previous process, until the server has answered. */
    let restored = yield* restore(options, keeper)
    const client = restored?.state.client ?? Encoding.encodeHex(yield* randomBytes(8))
    /** Names the server's process, where it is known. */
    let serverRun: string | undefined
    let active: ClientSession.ClientSession | undefined
    /** The control connection, and the newest key when it began. */
    let current: { readonly connection: Connection; readonly newest: TunnelKey.TunnelKey } | undefined
    let replaced = false
    /** Whether the last control connection was authenticated by a key that is not the newest. */
    let usedPreviousKey = false
    /** What the log says of the protection of visitors' data. */
    let told = ""

    const resumable = () => (active === undefined || active.isOver() ? undefined : active)

    const replaceOutdated = ([newest]: InForce) =>
      Effect.suspend(() => {
        if (current === undefined || current.newest === newest) return Effect.void
        const { connection } = current
        const reset = Effect.suspend(() => {
          if (current?.connection !== connection) return Effect.void
          replaced = true
          return connection.reset
        })
        // Stretched before, so that the session is without a control connection for some round trips only.
        return Effect.zipRight(TunnelKey.derive(newest, salt), reset)
      })

    /** Opens a session in place of the previous one, or that of the previous process. */
    const begin = ({ streams, ...initial }: Beginning) =>
      Effect.gen(function* () {
        const { terms } = initial
        restored = undefined
        const previous = active
        active = undefined
        if (previous !== undefined) yield* previous.end
        yield* options.setVisitorSide(ClientSession.visitorsOf(terms))
        const protection = Protection.sentenceOf(terms)
        if (protection !== told) yield* Effect.annotateLogs(Effect.logInfo(protection), { server: String(address) })
        told = protection
        const opening = ClientSession.open(
          { ...options, streams },
          { ...initial, client, keeper, isKept: serverRun !== undefined }
        )
        active = yield* Scope.extend(opening, tunnel)
        return active
      })

    const open = (onConnected: (what: Connected) => Effect.Effect<void>) =>
      Effect.gen(function* () {
        const previous = resumable()
        const resume = previous
          ? { keys: previous.proof().keys, received: previous.session.received() }
          : restored && { keys: restored.state.proof.keys, received: restored.state.bus.received }
        const inForce = yield* keyring.inForce
        const { agreement, connection, key } = yield* ClientHandshake.open(inForce, {
          address,
          salt,
          client,
          tls,
          streams,
          run,
          resume
        })
        const { dialect, keys } = agreement
        const proof = { key, keys, salt }
        const isOtherRun = serverRun !== undefined && agreement.run !== undefined && agreement.run !== serverRun
        serverRun = agreement.run ?? serverRun
        current = { connection, newest: inForce[0] }
        usedPreviousKey = key !== inForce[0]
        yield* replaceOutdated(yield* keyring.inForce)
        if (agreement._tag === "New") {
          const { streams, terms } = agreement
          const { session } = yield* begin({ proof, streams, terms })
          yield* onConnected("connected")
          return yield* attached(session, { connection, dialect })
        }
        const continued = previous ?? (restored && (yield* begin(continuing(restored, agreement))))
        if (continued === undefined) return yield* Effect.dieMessage("resumed, with nothing to resume")
        continued.accept(agreement)
        continued.renew(proof)
        if (isOtherRun && previous !== undefined) yield* noticeRun(continued, address)
        yield* onConnected("connected again")
        return yield* attached(continued.session, { connection, dialect, received: agreement.received })
      })

    return {
      /** Uses one control connection, from its first byte to its end, and completes with why it ended. */
      use: (onConnected: (what: Connected) => Effect.Effect<void>) =>
        open(onConnected).pipe(Effect.merge, Effect.ensuring(Effect.sync(() => (current = undefined))), Effect.scoped),
      /** Resets the control connection if it began before the newest key was in force; the next one uses that key. */
      replaceOutdated,
      /** Whether the last control connection was reset for a newer key. Asking clears it. */
      wasReplaced: () => {
        const was = replaced
        replaced = false
        return was
      },
      /** Whether the last control connection used a key that was replaced here. The server resets it when it replaces that key. */
      usedPreviousKey: () => usedPreviousKey,
      /** Whether there is a session to resume. */
      isResumable: () => resumable() !== undefined
    }
  })

type Beginning = Omit<ClientSession.Initial, "client" | "keeper" | "isKept"> & { readonly streams: boolean }

/** The session of the previous process. */
interface Restored {
  readonly state: SessionState
  readonly terms: Signal.Terms
}

/** The session of the previous process, if the server's terms are still good enough. */
const restore = ({ keyring, streams, tls }: Options, keeper: SessionKeeper.SessionKeeper) =>
  Effect.gen(function* () {
    const [key] = yield* keyring.inForce
    let terms: Signal.Terms | undefined
    const accepts = (state: SessionState) => {
      const signal = Option.getOrUndefined(Either.getRight(Signal.fromText(state.terms)))
      if (signal?._tag !== "Terms" || TlsMode.isWeaker(signal.tls, tls)) return false
      terms = signal
      return streams || !state.streams
    }
    const found = yield* keeper.restore({ key, accepts })
    if (Option.isNone(found) || terms === undefined) return undefined
    yield* Effect.logInfo("found the session of the previous process; resuming it")
    const restored: Restored = { state: found.value, terms }
    return restored
  })

const continuing = ({ state, terms }: Restored, resumed: ClientSession.Resumed): Beginning => ({
  resumed,
  proof: state.proof,
  streams: state.streams,
  terms,
  restored: state
})

/** Another process of the server continues the session: the connections of the previous one are dead. */
const noticeRun = ({ session }: ClientSession.ClientSession, address: Options["address"]): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.annotateLogs(
      Effect.logInfo("another process of the server resumes the session; resetting the visitors of the previous one"),
      { server: String(address) }
    ),
    session.restartPeer
  )

/** Uses the control connection until it is lost. While this side stops, the end of the scope closes the connection. */
const attached = ({ attach }: Session.Session["Type"], control: SignalBus.ControlConnection) =>
  Effect.flatMap(attach(control), (lost) => (lost.reason === "Stopped" ? Effect.never : Effect.succeed(lost)))

/** Uses one control connection and fails with how it ended. */
const makeAttempt = ({ address, report }: Options, control: Control, unanswered: { inARow: number }) =>
  Effect.gen(function* () {
    const peers = yield* Peers
    let since: number | undefined
    const onConnected = (what: Connected) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        since = now
        report("connected")
        peers.report({ name: String(address), away: undefined })
        return Effect.annotateLogs(Effect.logInfo(what), { server: String(address) })
      })
    const error = yield* ChildFiber.run(control.use(onConnected))
    // A server that was silent until it counted as lost does not return at once.
    const isAway = since === undefined || (error._tag === "ControlLost" && error.reason === "Silent")
    unanswered.inARow = isUnanswered({ error }) ? unanswered.inARow + 1 : 0
    const isRetriedAtOnce = unanswered.inARow > 0 && unanswered.inARow <= unansweredRetries
    report(isAway && !isRetriedAtOnce ? "failed" : "lost")
    const now = yield* Clock.currentTimeMillis
    const connected = Option.map(Option.fromNullable(since), (since) => Duration.millis(now - since))
    return yield* Effect.fail<Ended>({ error, connected, isRetriedAtOnce })
  })

/** Logs how an attempt ended: the first of equal failures as a warning, the others at debug. */
const makeReport = ({ address }: Options, control: Control) =>
  Effect.map(Settings, ({ resumeGrace }) => {
    let last = ""
    return ({ connected, error, isRetriedAtOnce }: Ended): Effect.Effect<void> => {
      if (control.wasReplaced()) return Effect.void
      if (isRetriedAtOnce) {
        const isRepeated = last === retryLine
        last = retryLine
        const log = isRepeated ? Effect.logDebug(retryLine) : Effect.logInfo(retryLine)
        return Effect.annotateLogs(log, { server: String(address) })
      }
      const left = error._tag === "ControlLost" && error.reason === "Left"
      const resumable = control.isResumable() && !left
      const keyEnded =
        resumable && error._tag === "ControlLost" && error.reason === "Reset" && control.usedPreviousKey()
      const why = keyEnded ? `${error.message}, and used a previous tunnel key` : error.message
      const line = resumable
        ? `connection lost: ${why}; the session can be resumed within ${Duration.format(resumeGrace)}`
        : `${Option.isNone(connected) ? "no session" : "session over"}: ${error.message}${otherwise(error)}`
      const isRepeated = Option.isNone(connected) && last === error.message
      last = error.message
      // A server that ends the session, or the time of a replaced key, does so on purpose.
      const isWished = left || keyEnded
      const log = isRepeated ? Effect.logDebug(line) : isWished ? Effect.logInfo(line) : Effect.logWarning(line)
      return Effect.annotateLogs(log, { server: String(address) })
    }
  })

const retryLine =
  "the server closed the connection without an answer; it may drop some because too many come: trying again at once"

const otherwise = (error: Ended["error"]): string =>
  isUnanswered({ error }) ? ", or it drops connections because too many come" : ""
