/**
 * The server: it serves one client at a time, whose control and pool connections arrive on the tunnel port.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Address, isWildcard } from "../core/Address.js"
import { Refusals } from "../core/Refusals.js"
import { rootSpan } from "../core/RootSpan.js"
import type { TlsMode } from "../core/TlsMode.js"
import type { Certificate } from "../transport/Certificates.js"
import type { Order } from "../pool/HandOutOrder.js"
import { Crypto } from "../transport/Crypto.js"
import * as Handshake from "../wire/Handshake.js"
import { HandshakeError } from "../wire/HandshakeError.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { Terms, toText } from "../wire/Signal.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import * as CurrentClient from "./CurrentClient.js"
import type * as Keyring from "./Keyring.js"
import * as Peers from "./Peers.js"
import * as Protection from "./Protection.js"
import { Router } from "./Router.js"
import type { SessionProof } from "./SessionProof.js"
import * as SessionKeeper from "./SessionKeeper.js"
import type { SessionState } from "./SessionState.js"
import * as TunnelPort from "./TunnelPort.js"

export interface Options {
  readonly tunnelPort: TunnelPort.TunnelPort
  readonly keyring: Keyring.Keyring
  /** Idle pool connections at most. */
  readonly max: number
  /** Which idle pool connection is handed out, where visitors connect to the server. */
  readonly order: Order
  readonly tls: TlsMode
  /** Reads the certificate for the next connection, unless `tls` is `plain`. */
  readonly certificate: Option.Option<Effect.Effect<Certificate>>
  /** Whether this side serves visitors by streams. */
  readonly streams: boolean
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
    const { keyring, tunnelPort } = options
    const { report } = yield* Peers.Peers
    report({ name: Peers.client, away: "no client has connected yet" })
    const terms = yield* termsOf(options)
    const run = Encoding.encodeHex(yield* Effect.flatMap(Crypto, ({ randomBytes }) => randomBytes(4)))
    const server: Server = {
      options,
      terms,
      keeper: yield* SessionKeeper.make(String(tunnelPort.listener.address)),
      scope: yield* Effect.scope,
      turn: yield* Effect.makeSemaphore(1),
      current: undefined,
      hasOtherCertificate: false,
      live: undefined
    }
    yield* Effect.annotateLogs(Effect.logInfo(Protection.sentenceOf(terms)), {
      tunnel: String(tunnelPort.listener.address)
    })
    yield* restore(server)
    yield* Effect.forkScoped(
      Stream.runForEach(keyring.changes, (inForce) => stretchEarly(tunnelPort.listener.address, inForce))
    )
    yield* Effect.forkScoped(Stream.runForEach(keyring.changes, (inForce) => resetOutdated(server, inForce)))
    return yield* TunnelPort.serve(tunnelPort, {
      keys: keyring.inForce,
      offer: { streams: options.streams, run },
      mayHaveNewerKey: (peer) => server.current && CurrentClient.returnsFrom(server.current, peer),
      onClient: (arrival, candidate) => onClient(server, arrival, candidate),
      onJoin: (arrival, join) => onJoin(server, arrival, join)
    }).pipe(Effect.provideService(Scope.Scope, options.connections))
  })

// internal

/** How long the current client may take to answer a ping when another client has connected. */
const probeTimeout = Duration.seconds(1)

interface Server {
  readonly options: Options
  readonly terms: Terms
  readonly keeper: SessionKeeper.SessionKeeper
  /** Holds the sessions. */
  readonly scope: Scope.Scope
  /** Held while a candidate is compared with the current client: one at a time. */
  readonly turn: Effect.Semaphore
  current: CurrentClient.CurrentClient | undefined
  /** The certificate is another than that of the previous process, whose session this one continues. */
  hasOtherCertificate: boolean
  /** The session of the current client, as it is kept. */
  live: SessionKeeper.Live | undefined
}

const onClient = (server: Server, arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) => {
  const { current } = server
  // A client that does not take part in a restart would not trust another certificate.
  const mayResume = !server.hasOtherCertificate || candidate.run !== undefined
  const proof = current && mayResume ? Option.getOrUndefined(CurrentClient.resumedBy(current, candidate)) : undefined
  // Not in turn: another candidate may be waiting there for this client to answer the ping.
  return current === undefined || proof === undefined
    ? server.turn.withPermits(1)(startOrDecline(server, arrival, candidate))
    : resume(server, arrival, candidate, { current, proof })
}

const startOrDecline = (server: Server, arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
  Effect.gen(function* () {
    const { current } = server
    if (current === undefined) return yield* start(server, arrival, candidate)
    if (yield* isAlive(current, candidate)) return yield* decline(arrival, candidate)
    yield* CurrentClient.end(current)
    yield* start(server, arrival, candidate)
  })

/** Whether the current client keeps the tunnel from this candidate. */
const isAlive = (current: CurrentClient.CurrentClient, candidate: Handshake.Candidate) =>
  current.state._tag === "Ending" || current.id === candidate.client
    ? Effect.succeed(false)
    : current.session.probe(probeTimeout)

const decline = ({ connection }: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
  Effect.zipRight(
    Handshake.decline(connection, candidate),
    new HandshakeError({ reason: "Busy", peer: connection.remote })
  )

const start = (server: Server, arrival: TunnelPort.Arrival, candidate: Handshake.Candidate) =>
  Effect.gen(function* () {
    const { connection } = arrival
    const { client: id, dialect, key, keys, run, salt, streams } = candidate
    const details = { client: String(connection.remote) }
    const client = yield* open(server, { id, details, proof: { key, keys, salt }, run, streams })
    yield* Effect.tapError(Handshake.grant(connection, candidate, server.terms), () => CurrentClient.end(client))
    yield* attach(server, client, arrival, { connection, dialect, key })
  }).pipe(rootSpan("Server.startSession", () => ({ client: String(arrival.connection.remote) })))

/** The session continues over another control connection: relays, pool and outbox stay as they are. */
const resume = (
  server: Server,
  arrival: TunnelPort.Arrival,
  candidate: Handshake.Candidate,
  { current, proof }: { readonly current: CurrentClient.CurrentClient; readonly proof: SessionProof }
) =>
  Effect.gen(function* () {
    const { connection } = arrival
    const { dialect, key } = candidate
    yield* CurrentClient.noticeRun(current, candidate.run)
    // It would not notice another process of this server, and use counts that that one refuses.
    if (candidate.run === undefined && server.live !== undefined) server.keeper.drop(server.live)
    // Before the answer is sent, because the client's pool connections may follow it at once.
    CurrentClient.addProof(current, proof, candidate)
    server.keeper.touch()
    const received = current.session.received()
    const count = candidate.run === undefined ? undefined : current.firstJoin
    const fingerprint = server.hasOtherCertificate ? Option.getOrUndefined(server.terms.fingerprint) : undefined
    current.isKnown = true
    yield* Handshake.resume(connection, candidate, { keys: proof.keys, received, count, fingerprint })
    const handled = Option.match(candidate.resume, { onNone: () => -1, onSome: ({ received }) => received })
    yield* attach(server, current, arrival, { connection, dialect, key, received: handled })
    yield* Effect.annotateLogs(Effect.logInfo("client resumed its session"), { client: String(connection.remote) })
  }).pipe(rootSpan("Server.resumeSession", () => ({ client: String(arrival.connection.remote) })))

/** Stretches the newest key for the addresses that its clients use, before one of them connects with it. */
const stretchEarly = (address: Address, [newest, ...older]: Keyring.InForce) =>
  Effect.gen(function* () {
    const used = older.flatMap(({ salts }) => salts())
    const salts = isWildcard(address) ? used : [yield* TunnelKey.saltOf(address), ...used]
    yield* Effect.forEach(new Set(salts), (salt) => TunnelKey.derive(newest, salt), { discard: true })
  })

/** Opens the session that the previous process of this server stored. */
const restore = (server: Server) =>
  Effect.gen(function* () {
    const [key] = yield* server.options.keyring.inForce
    const own = toText(server.terms)
    const saved = yield* server.keeper.restore({
      key,
      accepts: ({ terms }) => withoutCertificate(terms) === withoutCertificate(own)
    })
    if (Option.isNone(saved)) return
    server.hasOtherCertificate = saved.value.terms !== own
    const { client: id, proof, streams } = saved.value
    yield* open(server, { id, details: { client: id }, proof, run: undefined, streams }, saved.value)
    yield* Effect.logInfo("restored the previous session; waiting for its client")
  })

/** Admits a pool connection to the session that it claims. */
const onJoin = (
  { current, options }: Server,
  { connection, scope }: TunnelPort.Arrival,
  { line, session }: { readonly line: string; readonly session: string }
) =>
  Effect.flatMap(options.keyring.inForce, (inForce) => {
    const proof = current && Option.getOrUndefined(CurrentClient.joinedBy(current, session, inForce))
    return current === undefined || proof === undefined
      ? new HandshakeError({ reason: "UnknownSession", peer: connection.remote })
      : Effect.zipRight(
          current.admission.admit(connection, { keys: proof.keys, line, scope }),
          CurrentClient.serve(current)
        )
  })

/** Opens a session for this client, which is the current one until the session's scope closes. */
const open = (
  server: Server,
  given: Pick<CurrentClient.Options, "details" | "id" | "proof" | "run" | "streams">,
  saved?: SessionState
) =>
  Effect.gen(function* () {
    const { certificate, max, order, receiver } = server.options
    const visitors = receiver === "server" ? "local" : "remote"
    const pool = { certificate, max, order, visitors, saved: saved?.pool } as const
    const { keeper } = server
    const client = yield* Scope.extend(
      CurrentClient.make({ ...given, pool, bus: saved?.bus, onChange: keeper.touch }),
      server.scope
    )
    server.current = client
    const leave = Effect.sync(() => {
      if (server.current === client) server.current = undefined
    })
    yield* Scope.addFinalizer(client.scope, leave)
    const router = yield* Router
    yield* Scope.extend(router.use(client.session), client.scope)
    yield* Effect.forkIn(runSession(client), client.scope)
    const live: SessionKeeper.Live = {
      state: () => stateOf(server, client),
      reserve: ({ joins, numbers }) => {
        client.session.reserve(numbers)
        client.admission.reserve(joins)
      },
      restored: saved
    }
    server.live = live
    if (saved === undefined) server.hasOtherCertificate = false
    if (saved !== undefined || given.run !== undefined) keeper.keep(live)
    yield* Scope.addFinalizer(client.scope, farewell(server, client, live))
    return client
  })

const attach = (server: Server, ...given: Parameters<typeof CurrentClient.attach>) =>
  CurrentClient.attach(...given).pipe(
    // The grace period of its tunnel key may have ended during the handshake.
    Effect.zipRight(Effect.flatMap(server.options.keyring.inForce, (inForce) => resetOutdated(server, inForce)))
  )

const resetOutdated = (server: Server, inForce: Keyring.InForce) =>
  Effect.suspend(() =>
    server.current === undefined ? Effect.void : CurrentClient.resetOutdated(server.current, inForce)
  )

/** A self-signed certificate is part of the terms: the client pins its fingerprint. */
const termsOf = ({ certificate, max, receiver, tls }: Options) =>
  Effect.gen(function* () {
    const pinned = tls === "self-signed" ? yield* Effect.transposeOption(certificate) : Option.none()
    return new Terms({ max, receiver, tls, fingerprint: Option.map(pinned, ({ fingerprint }) => fingerprint) })
  })

/** Handles the client's signals until its session is over, and ends it. */
const runSession = (client: CurrentClient.CurrentClient) =>
  client.session.run.pipe(
    Effect.tapError(({ message }) =>
      Effect.map(Peers.Peers, ({ report }) => report({ name: Peers.client, away: `the client is away: ${message}` }))
    ),
    Effect.catchAll((error) =>
      client.state._tag === "Serving"
        ? Effect.annotateLogs(sessionOver(error), client.details)
        : // A client that refuses the certificate, for example, connects and leaves again and again.
          Effect.flatMap(Refusals, ({ count }) => count("handshake", error, { details: client.details }))
    ),
    Effect.zipRight(CurrentClient.end(client))
  )

/** Only a client that did not leave by itself is a warning. */
const sessionOver = ({ message, reason }: SignalBus.SignalBusClosed) =>
  reason === "Left" || reason === "Stopped"
    ? Effect.logInfo(`client left: ${message}`)
    : Effect.logWarning(`client lost: ${message}; the session is over`)

/** Runs first when the session's scope closes: sends a `Bye`, or stores the session if the tunnel stops and can store it. */
const farewell = (server: Server, client: CurrentClient.CurrentClient, live: SessionKeeper.Live) =>
  Effect.suspend(() => {
    const { keeper } = server
    const { session, state } = client
    if (state._tag === "Ending") {
      keeper.drop(live)
      // Another client may wait for the place of one that no longer answers.
      return session.leave("written")
    }
    const last = stateOf(server, client)
    if (!keeper.isEnabled || last === undefined) return session.leave("closed")
    return Effect.flatMap(session.suspend, (bus) => keeper.save({ ...last, bus, pool: client.admission.saved() }))
  })

/** Each process has a self-signed certificate of its own. */
const withoutCertificate = (terms: string): string => terms.replace(/[?]fp=[0-9a-f]{64}/, "")

/** What another process needs to continue the session from now; `undefined` when it is over. */
const stateOf = (
  { terms }: Server,
  { admission, id, session, state, streams }: CurrentClient.CurrentClient
): SessionState | undefined =>
  state._tag === "Ending"
    ? undefined
    : {
        client: id,
        proof: state.proofs[0],
        terms: toText(terms),
        streams,
        bus: session.snapshot(),
        pool: admission.saved()
      }
