/**
 * The server's side of a tunnel: one client at a time, whose pool and signals make the session.
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AcceptingPool from "../pool/AcceptingPool.js"
import type { Certificate } from "../transport/Certificates.js"
import type { Crypto } from "../transport/Crypto.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { Deflate } from "../wire/Deflate.js"
import type { EventBus } from "../core/EventBus.js"
import type { Egress } from "../relay/Egress.js"
import * as TunnelPort from "./TunnelPort.js"
import * as Handshake from "../wire/Handshake.js"
import * as Key from "../wire/Key.js"
import * as Keyring from "./Keyring.js"
import { Router } from "./Router.js"
import { Refusals } from "../core/Refusals.js"
import * as Session from "./Session.js"
import { SessionStore } from "./SessionStore.js"
import * as SessionState from "./SessionState.js"
import { Settings } from "../transport/Settings.js"
import { Terms, toText } from "../wire/Signal.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { SignalBusFactory } from "../signal/SignalBusFactory.js"
import { PoolFactory } from "../pool/PoolFactory.js"
import type { PoolPolicy } from "../pool/PoolPolicy.js"
import type { TlsMode } from "../core/TlsMode.js"
import type { Connection, Listener, Transport } from "../transport/Transport.js"

export interface Options {
  readonly listener: Listener
  readonly keyring: Keyring.Keyring
  /** Idle pool connections at most. */
  readonly max: number
  readonly tls: TlsMode
  /** The certificate for the next connection, unless `tls` is `plain`. */
  readonly certificate: Option.Option<Effect.Effect<Certificate>>
  /** Whether visitors come to the server or to the client. */
  readonly receiver: "server" | "client"
  /** Holds the pool connections that visitors are being served on: they outlive the sessions, and this loop. */
  readonly connections: Scope.Scope
}

/** How long the client that has the tunnel may take to show that it is alive when another one asks for it. */
const probeTimeout = Duration.seconds(1)

/** What shows that a client is the session's, and the tunnel key that it grew from. */
type Proof = Pick<Handshake.Candidate, "key" | "keys" | "nonces">

interface Incumbent {
  readonly client: string
  /** For each tunnel key that the client came by, the newest first. Its control connections have keys of their own. */
  proofs: Arr.NonEmptyReadonlyArray<Proof>
  readonly session: Session.Session["Type"]
  readonly admission: AcceptingPool.Admission["Type"]
  readonly scope: Scope.CloseableScope
  readonly details: Readonly<Record<string, string>>
  /** It has brought a pool connection: the tunnel serves. */
  serving: boolean
  /** It ends, and the tunnel does not. */
  over: boolean
  /** The control connection of now, and the tunnel key that opened it. */
  control: { readonly connection: Connection; readonly key: Key.Stretched } | undefined
}

/**
 * Serves clients on the tunnel port for ever.
 *
 * A client that is there keeps the tunnel, and another one is told to come back. It gives way to its own process
 * connecting anew at once, and to any client that knows the key when it does not answer a ping within a second. A client
 * that comes back to its session within the grace goes on with it.
 */
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
  | SessionStore
  | Settings
  | SignalBusFactory
  | Transport
> =>
  Effect.gen(function* () {
    const buses = yield* SignalBusFactory
    const link = yield* Router
    const pools = yield* PoolFactory
    const refusals = yield* Refusals
    const { resumeGrace } = yield* Settings
    const tunnel = yield* Effect.scope
    const deciding = yield* Effect.makeSemaphore(1)
    const { certificate, max, receiver, tls } = options
    const pinned = tls === "self-signed" ? yield* Effect.transposeOption(certificate) : Option.none()
    const terms = new Terms({ max, receiver, tls, fingerprint: Option.map(pinned, ({ fingerprint }) => fingerprint) })
    const visitors = receiver === "server" ? "local" : "remote"
    const { place } = yield* SessionStore
    const state: SessionState.Where = { place, tunnel: String(options.listener.address), terms: toText(terms) }
    let incumbent: Incumbent | undefined

    /** Whether the tunnel is free for this client, or was made so. */
    const settle = (client: string) =>
      Effect.suspend(() => {
        const before = incumbent
        if (before === undefined) return Effect.succeed(true)
        const alive = before.client === client ? Effect.succeed(false) : before.session.probe(probeTimeout)
        return Effect.flatMap(alive, (alive) => (alive ? Effect.succeed(false) : Effect.as(close(before), true)))
      })

    /** Ends the session, while the tunnel goes on. */
    const close = (here: Incumbent) =>
      Effect.suspend(() => {
        here.over = true
        return Scope.close(here.scope, Exit.void)
      })

    /** What is done first when the session's scope closes: a farewell, or where it can be kept, its state. */
    const part = (here: Incumbent) =>
      Effect.suspend(() => {
        const { admission, client, proofs, session } = here
        const [{ keys, nonces }] = proofs
        return here.over || !SessionState.isKept(state)
          ? session.leave
          : Effect.flatMap(session.suspend, (bus) =>
              SessionState.keep(state, { client, keys, nonces, bus, pool: admission.saved() })
            )
      })

    const serves = (client: Incumbent) =>
      Effect.suspend(() => {
        if (client.serving) return Effect.void
        client.serving = true
        return Effect.annotateLogs(Effect.logInfo("client connected"), client.details)
      })

    /** Whoever came by a key that is no longer in force comes back by a newer one, to the same session, or not at all. */
    const outdated = (inForce: Keyring.InForce) =>
      Effect.suspend(() => {
        const control = incumbent?.control
        return control === undefined || inForce.includes(control.key) ? Effect.void : control.connection.reset
      })

    /** Speaks over the control connection until it is lost, and closes it. */
    const attach = (
      { connection, scope: own }: TunnelPort.Arrival,
      here: Incumbent,
      { key, ...line }: SignalBus.ControlConnection & { readonly key: Key.Stretched }
    ) => {
      here.control = { connection, key }
      const speak = Effect.flatMap(here.session.attach(line), ({ message, reason }) => {
        // Who stays away without a word may come back.
        const mayReturn = reason !== "Superseded" && reason !== "Left" && reason !== "Stopped"
        if (!mayReturn || !here.serving) return Effect.void
        const waits = `; its session waits for it up to ${Duration.format(resumeGrace)}`
        return Effect.annotateLogs(Effect.logWarning(`client lost: ${message}${waits}`), here.details)
      })
      const spoken = Effect.uninterruptibleMask((restore) =>
        restore(speak).pipe(
          Effect.ensuring(Effect.zipRight(connection.reset, Scope.close(own, Exit.void))),
          Effect.forkIn(here.scope)
        )
      )
      // The key's grace may have run out during the handshake.
      return Effect.zipRight(spoken, Effect.flatMap(options.keyring.inForce, outdated))
    }

    const begin = (
      { client, details, proofs }: Pick<Incumbent, "client" | "details" | "proofs">,
      scope: Scope.CloseableScope,
      saved: Option.Option<SessionState.SessionState>
    ) =>
      Effect.gen(function* () {
        const pool = { max, visitors, certificate, saved: Option.getOrUndefined(saved)?.pool } as const
        const services = yield* Layer.buildWithScope(
          Session.layer({ visitors }).pipe(
            Layer.provideMerge(pools.accepting(pool)),
            Layer.provide(buses.layer({ saved: Option.getOrUndefined(saved)?.bus }))
          ),
          scope
        )
        const session = Context.get(services, Session.Session)
        const admission = Context.get(services, AcceptingPool.Admission)
        const here: Incumbent = {
          client,
          details,
          proofs,
          session,
          admission,
          scope,
          serving: false,
          over: false,
          control: undefined
        }
        yield* Scope.addFinalizer(
          scope,
          Effect.sync(() => {
            if (incumbent === here) incumbent = undefined
          })
        )
        incumbent = here
        return here
      })

    const run = (here: Incumbent) =>
      here.session.run.pipe(
        // A client that does not agree with the certificate, say, comes and goes for ever.
        Effect.catchAll((error) =>
          here.serving
            ? Effect.annotateLogs(Effect.logWarning(`client lost: ${error.message}; the session is over`), here.details)
            : refusals.count("handshake", error, { details: here.details })
        ),
        Effect.zipRight(close(here)),
        Effect.forkIn(here.scope)
      )

    const start = (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
      Effect.gen(function* () {
        const { connection } = arrival
        const { client, dialect, key, keys, nonces } = candidate
        const scope = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
        const details = { client: String(connection.remote) }
        const here = yield* begin({ client, details, proofs: [{ key, keys, nonces }] }, scope, Option.none())
        yield* Effect.tapError(Handshake.grant(connection, candidate, terms), () => close(here))
        yield* Scope.extend(link.use(here.session), scope)
        yield* run(here)
        yield* attach(arrival, here, { connection, dialect, key })
        yield* Scope.addFinalizer(scope, part(here))
      })

    /** The session that the server before this one left, and whose client may come back to it. */
    const restore = Effect.gen(function* () {
      const [key] = yield* options.keyring.inForce
      const saved = yield* SessionState.restore(state, { key, grace: resumeGrace })
      if (Option.isNone(saved)) return
      const { client, keys, nonces } = saved.value
      const scope = yield* Scope.fork(tunnel, ExecutionStrategy.sequential)
      const here = yield* begin({ client, details: { client }, proofs: [{ key, keys, nonces }] }, scope, saved)
      yield* Scope.extend(link.use(here.session), scope)
      yield* run(here)
      yield* Scope.addFinalizer(scope, part(here))
      yield* Effect.logInfo("the session of before is kept for its client")
    })

    /** The client goes on with its session: relays, pool and outbox are as they were. */
    const goOn = (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate, here: Incumbent, proof: Proof) =>
      Effect.gen(function* () {
        const { connection } = arrival
        const { dialect, key, keys, nonces } = candidate
        // Before the client hears of it, and joins by them.
        const others = here.proofs.filter((other) => other !== proof).slice(0, Keyring.limit)
        here.proofs = Key.same(proof.key, key) ? [proof, ...others] : [{ key, keys, nonces }, proof, ...others]
        yield* Handshake.resume(connection, candidate, { keys: proof.keys, received: here.session.received() })
        const received = Option.match(candidate.resume, { onNone: () => -1, onSome: ({ received }) => received })
        yield* attach(arrival, here, { connection, dialect, key, received })
        yield* Effect.annotateLogs(Effect.logInfo("client is back"), { client: String(connection.remote) })
      })

    yield* restore
    yield* Effect.forkScoped(Stream.runForEach(options.keyring.changes, outdated))
    return yield* TunnelPort.serve({
      listener: options.listener,
      keys: options.keyring.inForce,
      onClient: (arrival, candidate) => {
        const here = incumbent
        // Not in turn: another client may be waiting there for this one to show that it is alive.
        const proof = here?.proofs.find(({ keys }) => Handshake.isOf(candidate, keys))
        if (here !== undefined && here.client === candidate.client && proof !== undefined) {
          return goOn(arrival, candidate, here, proof)
        }
        return deciding.withPermits(1)(
          Effect.flatMap(settle(candidate.client), (free) =>
            free
              ? start(arrival, candidate)
              : Effect.zipRight(
                  Handshake.decline(arrival.connection, candidate),
                  new Handshake.HandshakeError({ reason: "Busy", peer: arrival.connection.remote })
                )
          )
        )
      },
      onJoin: ({ connection, scope }, { line, session }) =>
        Effect.flatMap(options.keyring.inForce, (inForce) => {
          const here = incumbent
          const proof = here?.proofs.find(
            ({ key, keys }) => keys.id === session && inForce.some((one) => Key.same(one, key))
          )
          return here === undefined || proof === undefined
            ? new Handshake.HandshakeError({ reason: "UnknownSession", peer: connection.remote })
            : Effect.zipRight(here.admission.admit(connection, { keys: proof.keys, line, scope }), serves(here))
        })
    }).pipe(Effect.provideService(Scope.Scope, options.connections))
  })
