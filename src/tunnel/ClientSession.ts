/**
 * A client's session with one server, over one control connection after the other.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import { rootSpan } from "../core/RootSpan.js"
import type { Order } from "../pool/HandOutOrder.js"
import * as JoinCounts from "../pool/JoinCounts.js"
import { PoolFactory } from "../pool/PoolFactory.js"
import type * as SignalBus from "../signal/SignalBus.js"
import { SignalBusFactory } from "../signal/SignalBusFactory.js"
import type { Trust } from "../transport/Tls.js"
import type { Agreement } from "../wire/Handshake.js"
import { Terms, toText } from "../wire/Signal.js"
import { Router } from "./Router.js"
import * as Session from "./Session.js"
import type * as SessionKeeper from "./SessionKeeper.js"
import { isRenewed, type SessionProof } from "./SessionProof.js"
import type { SessionState } from "./SessionState.js"

export interface ClientSession {
  readonly session: Session.Session["Type"]
  /** The proof by the last tunnel key that opened a control connection. */
  readonly proof: () => SessionProof
  /** Another process of the server has resumed the session: the certificate that it uses, and the lowest count that it admits. */
  readonly accept: (resumed: Resumed) => void
  /** Takes over the proof of another control connection, if its tunnel key is another. */
  readonly renew: (proof: SessionProof) => void
  /** Whether the session has ended, and cannot be resumed. */
  readonly isOver: () => boolean
  readonly end: Effect.Effect<void>
}

export interface Options {
  /** The server's tunnel address. */
  readonly address: Address
  /** The place of the server among several; visitors prefer the lowest. */
  readonly rank: number
  /** Whether to reset the visitors of a server that is lost, since others can serve them. */
  readonly isOneOfSeveral: boolean
  /** The fewest idle pool connections. */
  readonly min: number
  /** Which idle pool connection is handed out, where visitors connect to the client. */
  readonly order: Order
  /** Whether both sides serve visitors by streams. */
  readonly streams: boolean
  /** Reads the PEM texts of authorities that are trusted besides the system's. */
  readonly authorities: Effect.Effect<ReadonlyArray<string>>
}

export type Resumed = Pick<Extract<Agreement, { _tag: "Resumed" }>, "count" | "fingerprint">

/** What a session begins with, or continues. */
export interface Initial {
  /** The id of this client. */
  readonly client: string
  readonly proof: SessionProof
  readonly terms: Terms
  readonly keeper: SessionKeeper.SessionKeeper
  /** Whether the server notices another process of this client, so that the session can be kept. */
  readonly isKept: boolean
  /** The state of the previous process. Defaults to a new session. */
  readonly restored?: SessionState | undefined
  /** How the server resumed it. */
  readonly resumed?: Resumed | undefined
}

/** The side that visitors connect to under these terms. */
export const visitorsOf = (terms: Terms): "local" | "remote" => (terms.receiver === "client" ? "local" : "remote")

/** Opens the session under the server's terms, until the present scope closes or the session ends. */
export const open = (
  options: Options,
  { client, isKept, keeper, proof: initial, restored, resumed, terms: agreed }: Initial
) =>
  Effect.gen(function* () {
    const { isOneOfSeveral, rank, streams } = options
    const router = yield* Router
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    let proof = initial
    let terms = agreed
    let over = false
    const end = Effect.suspend(() => {
      over = true
      return Scope.close(scope, Exit.void)
    })
    return yield* Effect.gen(function* () {
      const counts = JoinCounts.make({ from: restored?.pool.joins, onChange: keeper.touch })
      const accept = ({ count = 0, fingerprint }: Resumed) => {
        counts.skipTo(count)
        if (fingerprint === undefined || terms.tls !== "self-signed") return
        const { max, receiver, tls } = terms
        terms = new Terms({ max, receiver, tls, fingerprint: Option.some(fingerprint) })
      }
      if (resumed !== undefined) accept(resumed)
      const bus = { saved: restored?.bus, onChange: keeper.touch }
      const session = yield* build(options, terms, {
        fingerprint: () => terms.fingerprint,
        keys: () => proof.keys,
        counts,
        bus
      })
      const live: SessionKeeper.Live = {
        state: () =>
          over
            ? undefined
            : {
                client,
                proof,
                terms: toText(terms),
                streams,
                bus: session.snapshot(),
                pool: { ids: 0, joins: counts.next() }
              },
        reserve: ({ joins, numbers }) => {
          session.reserve(numbers)
          counts.reserve(joins)
        },
        restored
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => keeper.drop(live)))
      if (isKept) keeper.keep(live)
      yield* router.use(session, { rank })
      yield* Effect.forkScoped(
        Effect.catchAll(session.run, ({ reason }) => {
          const ended = reason === "Left" || reason === "Stopped"
          return ended || !isOneOfSeveral ? end : Effect.zipRight(session.abandon, end)
        })
      )
      yield* Effect.addFinalizer(() => session.leave("closed"))
      return {
        session,
        proof: () => proof,
        accept,
        renew: (next) => {
          if (!isRenewed(proof, next)) return
          proof = next
          keeper.touch()
        },
        isOver: () => over,
        end
      } satisfies ClientSession
    }).pipe(
      Scope.extend(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  }).pipe(rootSpan("ClientSession.open", () => ({ server: String(options.address) })))

// internal

interface Parts {
  readonly bus: SignalBus.Options
  readonly counts: JoinCounts.JoinCounts
  /** Of the certificate that the server has now. */
  readonly fingerprint: () => Option.Option<string>
  readonly keys: () => SessionProof["keys"]
}

const build = (
  { address, authorities, min, order, streams }: Options,
  terms: Terms,
  { bus, counts, fingerprint, keys }: Parts
) =>
  Effect.gen(function* () {
    const buses = yield* SignalBusFactory
    const pools = yield* PoolFactory
    const visitors = visitorsOf(terms)
    const trust = yield* trustOf(terms, address, { authorities, fingerprint })
    const services = yield* Layer.build(
      Session.layer({ visitors, streams }).pipe(
        Layer.provideMerge(pools.dialing({ address, keys, counts, min, max: terms.max, order, visitors, trust })),
        Layer.provide(buses.layer(bus))
      )
    )
    return Context.get(services, Session.Session)
  })

const trustOf = (
  terms: Terms,
  { host }: Address,
  { authorities, fingerprint }: Pick<Options, "authorities"> & Pick<Parts, "fingerprint">
): Effect.Effect<() => Option.Option<Trust>> =>
  terms.tls === "verified"
    ? Effect.map(authorities, (authorities) => () => Option.some({ _tag: "Authority", name: host, authorities }))
    : Effect.succeed(() => Option.map(fingerprint(), (fingerprint) => ({ _tag: "Pinned", fingerprint })))
