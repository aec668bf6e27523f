/**
 * The datagrams of one visitor, wherever they go: over a pool connection, in frames, or over a UDP port.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as DatagramFrame from "../wire/DatagramFrame.js"
import { Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import { type Connection, type DatagramSocket, datagramsHeld, type TransportError } from "../transport/Transport.js"

/** A datagram that does not go on. */
export class DatagramDropped extends Schema.TaggedError<DatagramDropped>()("DatagramDropped", {
  /** `TooLarge`: longer than `limit`. `Full`: what waits on its way has reached `limit`. */
  reason: Schema.Literal("TooLarge", "Full"),
  /** Bytes. */
  limit: Schema.Number
}) {
  override get message(): string {
    return this.reason === "TooLarge"
      ? `a datagram of more than ${this.limit} bytes was dropped: NP_UDP_DATA_BUF_SIZE is the most that passes`
      : `a datagram was dropped: ${this.limit} bytes wait on its way already`
  }
}

export interface DatagramChannel {
  /** What has come, in order, at least one; `None` once the other side has ended. One fiber receives at a time. */
  readonly receive: Effect.Effect<Option.Option<ReadonlyArray<Uint8Array>>, TransportError>
  /** Completes when the way has taken them. */
  readonly send: (datagrams: ReadonlyArray<Uint8Array>) => Effect.Effect<void, TransportError>
  /** Bytes that wait to be taken by a way that is slow. */
  readonly unsent: () => number
}

type Sized = Uint8Array | { readonly bytes: Uint8Array }

const sizeOf = (datagram: Sized): number => ("bytes" in datagram ? datagram.bytes.length : datagram.length)

/** Looks at datagrams before they go on. */
export interface Checks {
  /** Those that are not too large; each of the others is counted, and the first logged. */
  readonly fitting: <A extends Sized>(
    datagrams: ReadonlyArray<A>,
    details: Readonly<Record<string, string>>
  ) => Effect.Effect<ReadonlyArray<A>>
  /** Counts datagrams that were dropped for want of room, and logs the first. */
  readonly full: (count: number, limit: number, details: Readonly<Record<string, string>>) => Effect.Effect<void>
}

export const checks: Effect.Effect<Checks, never, Refusals | Settings> = Effect.gen(function* () {
  const refusals = yield* Refusals
  const { datagramLimit: limit } = yield* Settings
  return {
    fitting: (datagrams, details) => {
      if (datagrams.every((datagram) => sizeOf(datagram) <= limit)) return Effect.succeed(datagrams)
      const fitting = datagrams.filter((datagram) => sizeOf(datagram) <= limit)
      const error = new DatagramDropped({ reason: "TooLarge", limit })
      const times = datagrams.length - fitting.length
      return Effect.as(refusals.count("datagram", error, { details, times }), fitting)
    },
    full: (times, limit, details) =>
      times === 0
        ? Effect.void
        : refusals.count("datagram", new DatagramDropped({ reason: "Full", limit }), { details, times })
  }
})

/** Over a pool connection, one visitor's all its life. */
export const overConnection = (connection: Connection, { fitting }: Checks): DatagramChannel => {
  const { encode } = DatagramFrame.makeEncoder()
  const { push } = DatagramFrame.makeDecoder()
  const details = { peer: String(connection.remote) }
  const receive: DatagramChannel["receive"] = Effect.flatMap(connection.read, (chunk) => {
    if (Option.isNone(chunk)) return Effect.succeedNone
    return Effect.flatMap(fitting(push(chunk.value), details), (datagrams) =>
      datagrams.length === 0 ? receive : Effect.succeedSome(datagrams)
    )
  })
  return { receive, send: (datagrams) => connection.write(encode(datagrams)), unsent: connection.unsent }
}

/** Over a UDP port of its own, with the target behind it. That nobody listens there is counted, and may change. */
export const overSocket = (
  socket: DatagramSocket,
  { fitting, full }: Checks
): Effect.Effect<DatagramChannel, never, Refusals> =>
  Effect.map(Refusals, (refusals) => {
    const peer = socket.address
    const details = { port: String(socket.address) }
    let dropped = 0
    const receive: DatagramChannel["receive"] = socket.receive.pipe(
      Effect.catchIf(
        ({ reason }) => reason === "Refused",
        (error) => Effect.as(refusals.count("target", error, { details }), [])
      ),
      Effect.flatMap((datagrams) => fitting(datagrams, details)),
      Effect.zipLeft(
        Effect.suspend(() => {
          const before = dropped
          dropped = socket.dropped()
          return full(dropped - before, datagramsHeld, details)
        })
      ),
      Effect.flatMap((datagrams) =>
        datagrams.length === 0 ? receive : Effect.succeedSome(datagrams.map(({ bytes }) => bytes))
      )
    )
    return {
      receive,
      unsent: () => 0,
      send: (datagrams) =>
        Effect.flatMap(socket.send(datagrams.map((bytes) => ({ peer, bytes }))), (refused) =>
          full(refused, datagramsHeld, details)
        )
    }
  })
