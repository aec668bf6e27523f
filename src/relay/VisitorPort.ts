/**
 * The address that visitors connect to: one port, for TCP and for UDP.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Address from "../core/Address.js"
import type { DatagramRelay } from "./DatagramRelay.js"
import type { Deadlines } from "../core/Deadlines.js"
import type { DatagramChannel } from "./DatagramChannel.js"
import * as Ingress from "./Ingress.js"
import type { Kind, RefusalError, Refusals } from "../core/Refusals.js"
import type { Relay } from "./Relay.js"
import type { Settings } from "../transport/Settings.js"
import type { Visit } from "../wire/Signal.js"
import type { Slots } from "./Slots.js"
import {
  type Connection,
  type DatagramSocket,
  type Listener,
  Transport,
  type TransportError
} from "../transport/Transport.js"
import * as UdpSessions from "./UdpSessions.js"

export interface VisitorPort {
  /** The address in use; if port `0` was asked for, with the port that the system chose. */
  readonly address: Address.Address
  readonly listener: Listener
  readonly socket: DatagramSocket
}

/** Opens both ports, or neither. Fails as `Transport.listen` does. */
export const open = (address: Address.Address): Effect.Effect<VisitorPort, TransportError, Scope.Scope | Transport> =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const parent = yield* Effect.scope
    const attempt = Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Scope.fork(parent, ExecutionStrategy.sequential), (scope) =>
        Effect.gen(function* () {
          const listener = yield* transport.listen(address, { port: "visitors" })
          const socket = yield* transport.bind(Address.make(address.host, listener.address.port))
          return { address: listener.address, listener, socket }
        }).pipe(
          Scope.extend(scope),
          restore,
          Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
        )
      )
    )
    // The port that the system chose for TCP may be in use for UDP.
    const isRetryable = ({ reason }: TransportError) => reason === "AddressInUse" && address.port === 0
    return yield* Effect.retry(attempt, { times: 9, while: isRetryable })
  })

/** How visitors reach a target: through the tunnel, or directly. */
export interface Routes<E extends RefusalError> {
  /** Opens a connection to a target, or to the other side, for a TCP visitor. */
  readonly connect: (visit: Visit) => Effect.Effect<Connection, E, Scope.Scope>
  /** See `Ingress.Options`. */
  readonly connectNow?: Ingress.Options<E>["openNow"]
  /** Opens a channel to a target, or to the other side, for a UDP visitor. */
  readonly associate: (visit: Visit) => Effect.Effect<DatagramChannel, E, Scope.Scope>
  /** See `Ingress.Options`. */
  readonly isAway?: (() => boolean) | undefined
  /** What a failure of either counts as. */
  readonly refusal: Kind
  /** TCP visitors send a PROXY protocol header first. */
  readonly proxyIn: boolean
}

/** Serves visitors until the scope closes, which stops accepting. The scope `visitors` owns those being served. */
export const serve = <E extends RefusalError>(
  { listener, socket }: VisitorPort,
  { associate, connect, connectNow, isAway, proxyIn, refusal }: Routes<E>,
  visitors: Scope.Scope
): Effect.Effect<void, never, DatagramRelay | Deadlines | Refusals | Relay | Scope.Scope | Settings | Slots> =>
  Effect.gen(function* () {
    const tcp = Ingress.serve({ listener, open: connect, openNow: connectNow, isAway, refusal, proxyIn })
    const udp = UdpSessions.serve({ socket, open: associate, refusal })
    yield* Effect.forkScoped(Effect.provideService(tcp, Scope.Scope, visitors))
    yield* Effect.forkScoped(Effect.provideService(udp, Scope.Scope, visitors))
  })
