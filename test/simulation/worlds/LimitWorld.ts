/**
 * A world without faults around one tunnel: two hosts, a target, and TCP and UDP visitors that send and receive.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Address from "../../../src/core/Address.js"
import type { Settings } from "../../../src/transport/Settings.js"
import type * as SimNetwork from "../../../src/testing/SimNetwork.js"
import * as Transport from "../../../src/transport/Transport.js"
import type { Tunnel } from "../../../src/tunnel/Tunnel.js"
import * as Simulated from "../../Simulated.js"
import * as TunnelHost from "./TunnelHost.js"

/** The side with the limit: the only one, the one that visitors connect to, or the one that dials the target. */
export type Side = "alone" | "receiver" | "dialler"
export const sides = ["alone", "receiver", "dialler"] as const

export interface Options {
  readonly side: Side
  /** The query of the side with the limit; the other side has `read=0`. */
  readonly query?: string | undefined
  readonly settings?: Partial<Settings["Type"]> | undefined
  readonly link?: SimNetwork.Link | undefined
  /** Changes the transport of the side that dials. */
  readonly dialling?: ((transport: Layer.Layer<Transport.Transport>) => Layer.Layer<Transport.Transport>) | undefined
}

export interface World {
  readonly network: SimNetwork.SimNetwork
  /** The side with the limit. */
  readonly tunnel: Tunnel["Type"]
  /** The side that visitors connect to. */
  readonly receiving: Tunnel["Type"]
}

export const visitorsAt = Address.make("receiver", 8080)
const target = Address.make("target", 80)

/** Runs the program on the visitors' host once the tunnel serves, and checks that it leaves nothing open. */
export const run = <A, E>(
  { dialling = (same) => same, link, query = "", settings = {}, side }: Options,
  program: (world: World) => Effect.Effect<A, E, Scope.Scope | Transport.Transport>
): A =>
  Simulated.run({ seed: 5, link: { latency: 2, ...link } }, ({ network }) =>
    Effect.gen(function* () {
      yield* Effect.provide(Transport.Transport, network.host("target"))
      const start = (host: "receiver" | "dialler", text: string) => {
        const limited = side === "alone" || side === host
        const transport = network.host(host)
        return TunnelHost.start({
          transport: side === "alone" || host === "dialler" ? dialling(transport) : transport,
          text: `${text}&${limited ? query : "read=0"}`,
          seed: host === "receiver" ? 1 : 2,
          settings: limited ? { ...quick, ...settings } : quick
        })
      }
      if (side === "alone") {
        const tunnel = yield* start("receiver", `client://${visitorsAt}/${target}?mode=1`)
        return yield* program({ network, tunnel, receiving: tunnel })
      }
      const receiver = yield* start("receiver", `server://k@receiver:10101/${visitorsAt}?mode=1`)
      const dialler = yield* start("dialler", `client://k@receiver:10101/${target}?mode=2&min=4`)
      yield* dialler.ready
      yield* Effect.sleep("100 millis")
      return yield* program({ network, tunnel: side === "receiver" ? receiver : dialler, receiving: receiver })
    }).pipe(Effect.provide(network.host("visitor")))
  )

/** Serves the target's TCP port until the scope closes. */
export const serveTcp = (
  network: SimNetwork.SimNetwork,
  handler: (connection: Transport.Connection) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  Effect.gen(function* () {
    const listener = yield* (yield* Transport.Transport).listen(target)
    yield* Effect.forkScoped(
      Transport.serve(listener, (connection) => Effect.ignore(Effect.scoped(handler(connection))))
    )
  }).pipe(Effect.provide(network.host("target")))

/** Serves the target's UDP port until the scope closes. */
export const serveUdp = (
  network: SimNetwork.SimNetwork,
  handler: (
    datagram: Transport.Datagram,
    socket: Transport.DatagramSocket
  ) => Effect.Effect<unknown, never, Scope.Scope>
) =>
  Effect.gen(function* () {
    const socket = yield* (yield* Transport.Transport).bind(target)
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.flatMap(socket.receive, (datagrams) =>
          Effect.forEach(datagrams, (datagram) => handler(datagram, socket))
        )
      )
    )
  }).pipe(Effect.provide(network.host("target")))

export const echoTcp = (network: SimNetwork.SimNetwork) =>
  serveTcp(network, (connection) => {
    const answer: Effect.Effect<void, Transport.TransportError> = Effect.flatMap(connection.read, (chunk) =>
      Option.isNone(chunk) ? connection.end : Effect.zipRight(connection.write(chunk.value), answer)
    )
    return answer
  })

export const echoUdp = (network: SimNetwork.SimNetwork) =>
  serveUdp(network, (datagram, socket) => socket.send([datagram]))

/** A visitor of an echo server. */
export interface Visitor {
  /** Sends a byte; whether an answer came within a second. */
  readonly ping: Effect.Effect<boolean>
}

const answered = (visit: Effect.Effect<unknown, Transport.TransportError>) =>
  visit.pipe(
    Effect.timeoutOption("1 second"),
    Effect.map(Option.isSome),
    Effect.catchAll(() => Effect.succeed(false))
  )

export const visitor = (protocol: "tcp" | "udp") =>
  Effect.gen(function* () {
    const transport = yield* Transport.Transport
    if (protocol === "udp") {
      const socket = yield* transport.associate(visitorsAt)
      const bytes = new Uint8Array([7])
      return { ping: answered(Effect.zipRight(socket.send([{ peer: visitorsAt, bytes }]), socket.receive)) }
    }
    const connection = yield* transport.connect(visitorsAt)
    return {
      ping: answered(
        Effect.zipRight(connection.write(new Uint8Array([7])), connection.read).pipe(
          Effect.filterOrFail(
            Option.isSome,
            () => new Transport.TransportError({ operation: "read", reason: "Closed", address: visitorsAt })
          )
        )
      )
    }
  })

/** A short stop. */
const quick: Partial<Settings["Type"]> = { shutdownTimeout: Duration.seconds(1) }
