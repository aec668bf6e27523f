/**
 * The server: it serves one client at a time, whose control and pool connections arrive on the tunnel port.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Refusals } from "../core/Refusals.js"
import { rootSpan } from "../core/RootSpan.js"
import type { TlsMode } from "../core/TlsMode.js"
import type { Certificate } from "../transport/Certificates.js"
import { Settings } from "../transport/Settings.js"
import type { Listener } from "../transport/Transport.js"
import * as Handshake from "../wire/Handshake.js"
import { Terms, toText } from "../wire/Signal.js"
import * as CurrentClient from "./CurrentClient.js"
import type * as Keyring from "./Keyring.js"
import { Router } from "./Router.js"
import type { SessionProof } from "./SessionProof.js"
import * as SessionState from "./SessionState.js"
import * as TunnelPort from "./TunnelPort.js"

export interface Options {
  readonly listener: Listener
  readonly keyring: Keyring.Keyring
  /** Idle pool connections at most. */
  readonly max: number
  readonly tls: TlsMode
  /** Reads the certificate for the next connection, unless `tls` is `plain`. */
  readonly certificate: Option.Option<Effect.Effect<Certificate>>
  /** Whether visitors connect to the server or to the client. */
  readonly receiver: "server" | "client"
  /** Holds the pool connections that serve visitors: they outlive the sessions and this loop. */
  readonly connections: Scope.Scope
}

/**
 * Serves clients on the tunnel port for ever.
 *
 * The current client keeps the tunnel; another one is declined. A client takes its place when the current one is an
 * earlier session of the same process, or does not answer a ping within a second. A client that reconnects within the
 * grace period resumes its session.
 */
export const run = (options: Options) =>
  Effect.gen(function* () {
    const clients = yield* makeClients(options)
    const deciding = yield* Effect.makeSemaphore(1)
    yield* clients.restore
    yield* Effect.forkScoped(Stream.runForEach(options.keyring.changes, clients.resetOutdated))
    return yield* TunnelPort.serve({
      listener: options.listener,
      keys: options.keyring.inForce,
      onClient: (arrival, candidate) => {
        const resumable = clients.resumable(candidate)
        // Not in turn: another candidate may be waiting there for this client to answer the ping.
        return resumable === undefined
          ? deciding.withPermits(1)(clients.startOrDecline(arrival, candidate))
          : clients.resume(arrival, candidate, resumable)
      },
      onJoin: clients.join
    }).pipe(Effect.provideService(Scope.Scope, options.connections))
  })

// internal

/** How long the current client may take to answer a ping when another client asks for the tunnel. */
const probeTimeout = Duration.seconds(1)

/** A client that resumes, and the proof by which it does. */
interface Resumable {
  readonly client: CurrentClient.CurrentClient
  readonly proof: SessionProof
}

/** The current client, and all that can change who it is. */
const makeClients = (options: Options) =>
  Effect.gen(function* () {
    const { resumeGrace } = yield* Settings
    const terms = yield* termsOf(options)
    const stored = yield* SessionState.make({ tunnel: String(options.listener.address), terms: toText(terms) })
    const tunnel = yield* Effect.scope
    let current: CurrentClient.CurrentClient | undefined

    const resetOutdated = (inForce: Keyring.InForce) =>
      Effect.suspend(() => (current === undefined ? Effect.void : CurrentClient.resetOutdated(current, inForce)))

    const attach = (...given: Parameters<typeof CurrentClient.attach>) =>
      CurrentClient.attach(...given).pipe(
        // The grace of its tunnel key may have ended during the handshake.
        Effect.zipRight(Effect.flatMap(options.keyring.inForce, resetOutdated))
      )

    /** Opens a session for this client, which is the current one until the session's scope closes. */
    const open = (
      given: Pick<CurrentClient.Options, "details" | "id" | "proof">,
      saved: Option.Option<SessionState.SessionState>
    ) =>
      Effect.gen(function* () {
        const { bus, pool } = Option.getOrElse(saved, () => ({ bus: undefined, pool: undefined }))
        const { certificate, max } = options
        const visitors = options.receiver === "server" ? "local" : "remote"
        const client = yield* Scope.extend(
          CurrentClient.make({ ...given, pool: { certificate, max, visitors, saved: pool }, bus }),
          tunnel
        )
        current = client
        yield* Scope.addFinalizer(
          client.scope,
          Effect.sync(() => {
            if (current === client) current = undefined
          })
        )
        const router = yield* Router
        yield* Scope.extend(router.use(client.session), client.scope)
        yield* Effect.forkIn(runSession(client), client.scope)
        yield* Scope.addFinalizer(client.scope, farewell(client, stored))
        return client
      })

    const start = (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
      Effect.gen(function* () {
        const { client: id, dialect, key, keys, nonces } = candidate
        const details = { client: String(arrival.connection.remote) }
        const client = yield* open({ id, details, proof: { key, keys, nonces } }, Option.none())
        yield* Effect.tapError(Handshake.grant(arrival.connection, candidate, terms), () => CurrentClient.end(client))
        yield* attach(client, arrival, { connection: arrival.connection, dialect, key })
      }).pipe(rootSpan("Server.startSession", () => ({ client: String(arrival.connection.remote) })))

    const decline = (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
      Effect.zipRight(
        Handshake.decline(arrival.connection, candidate),
        new Handshake.HandshakeError({ reason: "Busy", peer: arrival.connection.remote })
      )

    return {
      resetOutdated,

      /** Opens the session that the previous process of this server stored. */
      restore: Effect.gen(function* () {
        const [key] = yield* options.keyring.inForce
        const saved = yield* stored.restore({ key, grace: resumeGrace })
        if (Option.isNone(saved)) return
        const { client: id, proof } = saved.value
        yield* open({ id, details: { client: id }, proof }, saved)
        yield* Effect.logInfo("restored the previous session; waiting for its client")
      }),

      startOrDecline: (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
        Effect.suspend(() => {
          if (current === undefined) return start(arrival, candidate)
          const replaced = current
          return Effect.flatMap(isAlive(replaced, candidate.client), (alive) =>
            alive
              ? decline(arrival, candidate)
              : Effect.zipRight(CurrentClient.end(replaced), start(arrival, candidate))
          )
        }),

      /** The session that the candidate can resume, if any. */
      resumable: (candidate: Handshake.Candidate): Resumable | undefined => {
        const client = current
        return client === undefined
          ? undefined
          : Option.getOrUndefined(
              Option.map(CurrentClient.resumedBy(client, candidate), (proof) => ({ client, proof }))
            )
      },

      /** The session continues over another control connection: relays, pool and outbox stay as they are. */
      resume: (arrival: TunnelPort.Arrival, candidate: Handshake.Candidate, { client, proof }: Resumable) =>
        Effect.gen(function* () {
          const { connection } = arrival
          // Before the answer is sent, because the client's pool connections may follow it at once.
          CurrentClient.addProof(client, proof, candidate)
          yield* Handshake.resume(connection, candidate, { keys: proof.keys, received: client.session.received() })
          const received = Option.match(candidate.resume, { onNone: () => -1, onSome: ({ received }) => received })
          yield* attach(client, arrival, { connection, dialect: candidate.dialect, key: candidate.key, received })
          yield* Effect.annotateLogs(Effect.logInfo("client resumed its session"), {
            client: String(connection.remote)
          })
        }).pipe(rootSpan("Server.resumeSession", () => ({ client: String(arrival.connection.remote) }))),

      /** Admits a pool connection to the session that it claims. */
      join: ({ connection, scope }: TunnelPort.Arrival, { line, session }: { line: string; session: string }) =>
        Effect.flatMap(options.keyring.inForce, (inForce) => {
          const client = current
          const proof = Option.flatMap(Option.fromNullable(client), (client) =>
            CurrentClient.joinedBy(client, session, inForce)
          )
          return client === undefined || Option.isNone(proof)
            ? new Handshake.HandshakeError({ reason: "UnknownSession", peer: connection.remote })
            : Effect.zipRight(
                client.admission.admit(connection, { keys: proof.value.keys, line, scope }),
                CurrentClient.serve(client)
              )
        })
    }
  })

/** A self-signed certificate is part of the terms: the client pins its fingerprint. */
const termsOf = ({ certificate, max, receiver, tls }: Options) =>
  Effect.gen(function* () {
    const pinned = tls === "self-signed" ? yield* Effect.transposeOption(certificate) : Option.none()
    return new Terms({ max, receiver, tls, fingerprint: Option.map(pinned, ({ fingerprint }) => fingerprint) })
  })

/** Whether the current client keeps the tunnel from a candidate of this process id. */
const isAlive = (current: CurrentClient.CurrentClient, candidate: string) =>
  current.state._tag === "Ending" || current.id === candidate
    ? Effect.succeed(false)
    : current.session.probe(probeTimeout)

/** Handles the client's signals until its session is over, and ends it. */
const runSession = (client: CurrentClient.CurrentClient) =>
  client.session.run.pipe(
    Effect.catchAll((error) =>
      client.state._tag === "Serving"
        ? Effect.annotateLogs(Effect.logWarning(`client lost: ${error.message}; the session is over`), client.details)
        : // A client that refuses the certificate, for example, connects and leaves again and again.
          Effect.flatMap(Refusals, ({ count }) => count("handshake", error, { details: client.details }))
    ),
    Effect.zipRight(CurrentClient.end(client))
  )

/** Runs first when the session's scope closes: sends a `Bye`, or stores the session if the tunnel stops and can store it. */
const farewell = (client: CurrentClient.CurrentClient, stored: SessionState.Stored) =>
  Effect.suspend(() => {
    const { admission, id, session, state } = client
    if (state._tag === "Ending" || !stored.isEnabled) return session.leave
    const [proof] = state.proofs
    return Effect.flatMap(session.suspend, (bus) => stored.save({ client: id, proof, bus, pool: admission.saved() }))
  })
