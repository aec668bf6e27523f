/**
 * The datagrams of one visitor, each way: in frames over a pool connection, or over a UDP port.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as DatagramFrame from "../wire/DatagramFrame.js"
import { Refusals } from "../core/Refusals.js"
import { Settings } from "../transport/Settings.js"
import { type Connection, type DatagramSocket, maxBufferedBytes, type TransportError } from "../transport/Transport.js"
import { withoutStack } from "../core/WithoutStack.js"

/** A datagram was dropped. */
export class DatagramDropped extends withoutStack(
  Schema.TaggedError<DatagramDropped>()("DatagramDropped", {
    /** `TooLarge`: longer than `limit`. `Full`: the queue for it has reached `limit`. */
    reason: Schema.Literal("TooLarge", "Full"),
    /** Bytes. */
    limit: Schema.Number
  })
) {
  override get message(): string {
    return this.reason === "TooLarge"
      ? `dropped a datagram of more than ${this.limit} bytes, the limit by NP_UDP_DATA_BUF_SIZE`
      : `dropped a datagram: its queue of ${this.limit} bytes is full`
  }
}

export interface DatagramChannel {
  /** The datagrams that have arrived, in order, at least one; `None` after the end. One fiber receives at a time. */
  readonly receive: Effect.Effect<Option.Option<ReadonlyArray<Uint8Array>>, TransportError>
  /** Completes when the connection or the port has taken them. */
  readonly send: (datagrams: ReadonlyArray<Uint8Array>) => Effect.Effect<void, TransportError>
  /** Bytes that a slow connection has not taken yet. */
  readonly unsent: () => number
  /** The pool connection that carries the datagrams. */
  readonly connection?: Connection | undefined
  /** Whether anything has come from the pool connection, be it a part of a datagram. */
  readonly hasReceived?: (() => boolean) | undefined
  /** Puts datagrams back: the next `receive` returns them first. Without it, they are lost. */
  readonly unreceive?: ((datagrams: ReadonlyArray<Uint8Array>) => void) | undefined
}

type Sized = Uint8Array | { readonly bytes: Uint8Array }

const sizeOf = (datagram: Sized): number => ("bytes" in datagram ? datagram.bytes.length : datagram.length)

/** Drops datagrams; each counts, and the first one is logged. */
export interface Drops {
  /** Returns the datagrams within the size limit and drops the others. */
  readonly withinLimit: <A extends Sized>(
    datagrams: ReadonlyArray<A>,
    details: Readonly<Record<string, string>>
  ) => Effect.Effect<ReadonlyArray<A>>
  /** Counts the datagrams that were dropped because a queue of `limit` bytes was full. */
  readonly countFull: (count: number, limit: number, details: Readonly<Record<string, string>>) => Effect.Effect<void>
}

export const makeDrops: Effect.Effect<Drops, never, Refusals | Settings> = Effect.gen(function* () {
  const refusals = yield* Refusals
  const { datagramLimit: limit } = yield* Settings
  return {
    withinLimit: (datagrams, details) => {
      if (datagrams.every((datagram) => sizeOf(datagram) <= limit)) return Effect.succeed(datagrams)
      const fitting = datagrams.filter((datagram) => sizeOf(datagram) <= limit)
      const error = new DatagramDropped({ reason: "TooLarge", limit })
      const times = datagrams.length - fitting.length
      return Effect.as(refusals.count("datagram", error, { details, times }), fitting)
    },
    countFull: (times, limit, details) =>
      times === 0
        ? Effect.void
        : refusals.count("datagram", new DatagramDropped({ reason: "Full", limit }), { details, times })
  }
})

/** Over a pool connection, in frames. */
export const overConnection = (connection: Connection, drops: Drops): DatagramChannel => {
  const { encode } = DatagramFrame.makeEncoder()
  const { push } = DatagramFrame.makeDecoder()
  const details = { peer: String(connection.remote) }
  let hasReceived = false
  const receive: DatagramChannel["receive"] = Effect.flatMap(connection.read, (chunk) => {
    hasReceived = true
    if (Option.isNone(chunk)) return Effect.succeedNone
    return Effect.flatMap(drops.withinLimit(push(chunk.value), details), (datagrams) =>
      datagrams.length === 0 ? receive : Effect.succeedSome(datagrams)
    )
  })
  return {
    connection,
    hasReceived: () => hasReceived,
    receive,
    send: (datagrams) => connection.write(encode(datagrams)),
    unsent: connection.unsent
  }
}

/** Over a UDP port of its own, which sends to the target. A target that refuses is counted; it may listen later. */
export const overSocket = (socket: DatagramSocket, drops: Drops): Effect.Effect<DatagramChannel, never, Refusals> =>
  Effect.map(Refusals, (refusals) => {
    const peer = socket.address
    const details = { port: String(socket.address) }
    let dropped = 0
    const receive: DatagramChannel["receive"] = socket.receive.pipe(
      Effect.catchIf(
        ({ reason }) => reason === "Refused",
        (error) => Effect.as(refusals.count("target", error, { details }), [])
      ),
      Effect.flatMap((datagrams) => drops.withinLimit(datagrams, details)),
      Effect.zipLeft(
        Effect.suspend(() => {
          const last = dropped
          dropped = socket.dropped()
          return drops.countFull(dropped - last, maxBufferedBytes, details)
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
          drops.countFull(refused, maxBufferedBytes, details)
        )
    }
  })
