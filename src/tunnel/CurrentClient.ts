/**
 * The client that a server serves now: its session, the proofs that it can resume it by, and its control connection.
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import * as AcceptingPool from "../pool/AcceptingPool.js"
import { PoolFactory } from "../pool/PoolFactory.js"
import type * as SignalBus from "../signal/SignalBus.js"
import * as NetworkPrefix from "../relay/NetworkPrefix.js"
import { SignalBusFactory } from "../signal/SignalBusFactory.js"
import { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import * as Handshake from "../wire/Handshake.js"
import * as TunnelKey from "../wire/TunnelKey.js"
import * as Keyring from "./Keyring.js"
import * as Session from "./Session.js"
import * as Peers from "./Peers.js"
import { isRenewed, type SessionProof } from "./SessionProof.js"
import type * as TunnelPort from "./TunnelPort.js"

/** The session is open, and the client has not opened a pool connection yet. */
export interface Waiting extends Open {
  readonly _tag: "Waiting"
}

/** The client has opened a pool connection: visitors can be served. */
export interface Serving extends Open {
  readonly _tag: "Serving"
}

/** The session is closing. It accepts no pool connection and no resume, and another client may take its place. */
export interface Ending {
  readonly _tag: "Ending"
}

export interface CurrentClient {
  /** The id of the client's process. */
  readonly id: string
  /** Annotations of its log lines. */
  readonly details: Readonly<Record<string, string>>
  readonly session: Session.Session["Type"]
  /** Names the client's process, where it is known. */
  run: string | undefined
  /** The lowest count of a pool connection that this process admits; `undefined` in a session that it has begun. */
  readonly firstJoin: number | undefined
  /** Whether pool connections are admitted: not before the client knows by which process. It resets earlier ones. */
  isKnown: boolean
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  readonly admission: AcceptingPool.Admission["Type"]
  /** Closing it ends the session. */
  readonly scope: Scope.CloseableScope
  /** Has the fibers of the control connections: they run until the session has sent its `Bye`. */
  readonly controls: Scope.Scope
  state: Waiting | Serving | Ending
}

export interface Options {
  readonly id: string
  readonly details: Readonly<Record<string, string>>
  readonly proof: SessionProof
  readonly pool: AcceptingPool.Options
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  /** Names the client's process, where it is known. */
  readonly run: string | undefined
  /** The state of the bus that is continued. Defaults to a new session. */
  readonly bus?: SignalBus.Snapshot | undefined
  /** Called when the session has another state to keep. */
  readonly onChange: () => void
}

/** Builds the session of a client in a new scope, a child of the present one. */
export const make = ({ bus, details, id, onChange, pool, proof, run, streams }: Options) =>
  Effect.gen(function* () {
    const pools = yield* PoolFactory
    const buses = yield* SignalBusFactory
    const parent = yield* Effect.scope
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const services = yield* Layer.buildWithScope(
      Session.layer({ visitors: pool.visitors, streams }).pipe(
        Layer.provideMerge(pools.accepting({ ...pool, onChange })),
        Layer.provide(buses.layer({ saved: bus, onChange }))
      ),
      scope
    )
    const client: CurrentClient = {
      id,
      details,
      session: Context.get(services, Session.Session),
      run,
      firstJoin: pool.saved?.joins,
      isKnown: pool.saved === undefined,
      streams,
      admission: Context.get(services, AcceptingPool.Admission),
      scope,
      controls: yield* Scope.fork(scope, ExecutionStrategy.sequential),
      state: { _tag: "Waiting", proofs: [proof], control: Option.none() }
    }
    return client
  })

/** Ends the session, and keeps the tunnel open for another client. */
export const end = (client: CurrentClient): Effect.Effect<void> =>
  Effect.suspend(() => {
    client.state = { _tag: "Ending" }
    return Scope.close(client.scope, Exit.void)
  })

/** The proof by which this candidate can resume the client's session. */
export const resumedBy = (client: CurrentClient, candidate: Handshake.Candidate): Option.Option<SessionProof> =>
  client.state._tag === "Ending" || client.id !== candidate.client
    ? Option.none()
    : Arr.findFirst(client.state.proofs, ({ keys }) => Handshake.belongsTo(candidate, keys))

/** The proof of the session that a pool connection claims, if it is by a tunnel key in force. */
export const joinedBy = (
  { isKnown, state }: CurrentClient,
  session: string,
  inForce: Keyring.InForce
): Option.Option<SessionProof> =>
  state._tag === "Ending" || !isKnown
    ? Option.none()
    : Arr.findFirst(
        state.proofs,
        ({ key, keys }) => keys.id === session && inForce.some((other) => TunnelKey.same(other, key))
      )

/** Puts first the proof by which the client resumed, and before it the new one if the tunnel key is another. */
export const addProof = (client: CurrentClient, resumed: SessionProof, { key, keys, salt }: SessionProof): void => {
  const { state } = client
  if (state._tag === "Ending") return
  const added: SessionProof = { key, keys, salt }
  const others = state.proofs.filter((proof) => proof !== resumed).slice(0, Keyring.limit)
  client.state = { ...state, proofs: isRenewed(resumed, added) ? [added, resumed, ...others] : [resumed, ...others] }
}

/** Another process of the client continues the session: the connections of the previous one are dead. */
export const noticeRun = (client: CurrentClient, run: string | undefined): Effect.Effect<void> =>
  Effect.suspend(() => {
    const isOther = run !== undefined && client.run !== undefined && run !== client.run
    client.run = run ?? client.run
    if (!isOther) return Effect.void
    return Effect.zipRight(
      Effect.annotateLogs(
        Effect.logInfo("another process of the client resumes the session; resetting the visitors of the previous one"),
        client.details
      ),
      client.session.restartPeer
    )
  })

/** The client has opened a pool connection. */
export const serve = (client: CurrentClient): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (client.state._tag !== "Waiting") return Effect.void
    client.state = { ...client.state, _tag: "Serving" }
    return Effect.annotateLogs(Effect.logInfo("client connected"), client.details)
  })

/** Uses the arrival as the client's control connection until it is lost, by a fiber of its own, and closes it then. */
export const attach = (
  client: CurrentClient,
  { connection, scope }: TunnelPort.Arrival,
  { key, ...line }: SignalBus.ControlConnection & { readonly key: TunnelKey.TunnelKey }
): Effect.Effect<void, never, Peers.Peers | Settings> =>
  Effect.gen(function* () {
    const { resumeGrace } = yield* Settings
    const { report } = yield* Peers.Peers
    report({ name: Peers.client, away: undefined })
    if (client.state._tag !== "Ending") client.state = { ...client.state, control: Option.some({ connection, key }) }
    const used = Effect.map(client.session.attach(line), ({ message, reason }) => {
      if (reason !== "Superseded") report({ name: Peers.client, away: `the client is away: ${message}` })
      const mayReturn = reason !== "Superseded" && reason !== "Left" && reason !== "Stopped"
      return mayReturn && client.state._tag === "Serving" ? Option.some(message) : Option.none<string>()
    })
    const isAway = () =>
      client.state._tag === "Serving" && Option.exists(client.state.control, (last) => last.connection === connection)
    const waits = `its session waits up to ${Duration.format(resumeGrace)} for it`
    const reportLost = (message: string) =>
      Effect.logInfo(`client lost: ${message}; ${waits}`).pipe(
        Effect.zipRight(Effect.sleep(returnTime)),
        Effect.zipRight(
          Effect.suspend(() => (isAway() ? Effect.logWarning(`client away: ${message}; ${waits}`) : Effect.void))
        ),
        Effect.annotateLogs(client.details)
      )
    // An interrupted one has sent a `Bye`, which a reset would overtake.
    const close = (exit: Exit.Exit<Option.Option<string>>) =>
      Effect.zipRight(Exit.isInterrupted(exit) ? Effect.void : connection.reset, Scope.close(scope, Exit.void))
    yield* Effect.uninterruptibleMask((restore) =>
      restore(used).pipe(
        Effect.onExit(close),
        Effect.flatMap((lost) => (Option.isSome(lost) ? restore(reportLost(lost.value)) : Effect.void)),
        Effect.forkIn(client.controls)
      )
    )
  })

/** Resets a control connection whose tunnel key is no longer in force. The client resumes by a newer key, if it has one. */
export const resetOutdated = ({ state }: CurrentClient, inForce: Keyring.InForce): Effect.Effect<void> =>
  state._tag !== "Ending" && Option.isSome(state.control) && !inForce.includes(state.control.value.key)
    ? state.control.value.connection.reset
    : Effect.void

/**
 * Tells, when it is called, whether the client has connected again since, from the network of this peer. `undefined` when the
 * client cannot be the peer.
 */
export const returnsFrom = (client: CurrentClient, peer: Address): (() => boolean) | undefined => {
  const connectionOf = ({ state }: CurrentClient) =>
    state._tag === "Serving" ? Option.getOrUndefined(state.control)?.connection : undefined
  const before = connectionOf(client)
  if (before === undefined) return undefined
  return () => {
    const now = connectionOf(client)
    return now !== undefined && now !== before && NetworkPrefix.ofTcpPeer(now.remote) === NetworkPrefix.ofTcpPeer(peer)
  }
}

// internal

/** A client that replaces its control connection, to use a newer tunnel key, is back within this time. */
const returnTime = Duration.seconds(1)

interface Open {
  /** One for each tunnel key that the client used, the newest first. */
  readonly proofs: Arr.NonEmptyReadonlyArray<SessionProof>
  /** The last control connection, and the tunnel key that authenticated it. */
  readonly control: Option.Option<{ readonly connection: Connection; readonly key: TunnelKey.TunnelKey }>
}
