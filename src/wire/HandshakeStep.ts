/**
 * The steps of a handshake: it reads one message or line, writes one, and has a limited time for both.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Deadlines } from "../core/Deadlines.js"
import { Settings } from "../transport/Settings.js"
import type { Connection } from "../transport/Transport.js"
import * as Frame from "./Frame.js"
import { type HandshakeError, make, refuse } from "./HandshakeError.js"

/** Bytes in a message or line of the handshake, at most. An unauthenticated peer can make this side hold no more. */
export const maxBytes = 512

/** What a connection begins with: a message of a control connection, or a line of a pool connection. */
export type First =
  | { readonly _tag: "Message"; readonly message: Uint8Array }
  | { readonly _tag: "Line"; readonly line: string }

/** What the end of the connection means while a step waits. */
type OnEnd = "Ended" | "NoAnswer"

/** Reads a message or a line. A line begins with `/`, with which no length begins. Leaves the bytes after it unread. */
export const readFirst = (connection: Connection): Effect.Effect<First, HandshakeError> =>
  read<First>(connection, "Ended", (data) => (data[0] === slash ? cutLine(data) : cutMessage(data)))

/** Reads one message. Leaves the bytes after it unread. */
export const readMessage = (connection: Connection, onEnd: OnEnd): Effect.Effect<Uint8Array, HandshakeError> =>
  Effect.map(read(connection, onEnd, cutMessage), ({ message }) => message)

/** Reads one line. Leaves the bytes after it unread. */
export const readLine = (connection: Connection, onEnd: OnEnd): Effect.Effect<string, HandshakeError> =>
  Effect.map(read(connection, onEnd, cutLine), ({ line }) => line)

export const writeMessage = (connection: Connection, message: Uint8Array): Effect.Effect<void, HandshakeError> =>
  write(connection, Frame.message(message))

export const writeLine = (connection: Connection, line: string): Effect.Effect<void, HandshakeError> =>
  write(connection, Frame.encode([line]))

/** On timeout, resets the connection, which ends every wait on it. */
export const inTime =
  (connection: Connection) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | HandshakeError, Deadlines | R | Settings> =>
    Effect.flatMap(Deadlines, ({ after }) =>
      Effect.flatMap(Settings, ({ handshakeTimeout }) => {
        let late = false
        const expire = Effect.suspend(() => {
          late = true
          return connection.reset
        })
        const cancelDeadline = after(handshakeTimeout, expire)
        // After an interruption the deadline stays: its owner closes the connection, and resetting it again does no harm.
        return Effect.matchEffect(self, {
          onFailure: (error) => {
            cancelDeadline()
            return Effect.fail(late ? make("TimedOut", connection) : error)
          },
          onSuccess: (value) => {
            cancelDeadline()
            return Effect.succeed(value)
          }
        })
      })
    )

// internal

const slash = 0x2f

/** What was cut off, and the bytes after it; `"Incomplete"` while more must be read, `"TooLong"` when it cannot be a handshake. */
type Cut<A> = readonly [A, Uint8Array] | "Incomplete" | "TooLong"

const cutMessage = (data: Uint8Array): Cut<Extract<First, { _tag: "Message" }>> => {
  const length = Frame.lengthOf(data)
  if (length === undefined) return "Incomplete"
  if (length === 0 || length > maxBytes) return "TooLong"
  const end = Frame.headerLength + length
  if (data.length < end) return "Incomplete"
  return [{ _tag: "Message", message: data.subarray(Frame.headerLength, end) }, data.subarray(end)]
}

const cutLine = (data: Uint8Array): Cut<Extract<First, { _tag: "Line" }>> => {
  const cut = Frame.split(data)
  if ((cut?.[0] ?? data).length > maxBytes) return "TooLong"
  return cut === undefined ? "Incomplete" : [{ _tag: "Line", line: Frame.toText(cut[0]) }, cut[1]]
}

/** Reads until something can be cut off. Fails with `onEnd` when the connection ends before. */
const read = <A>(
  connection: Connection,
  onEnd: OnEnd,
  cut: (data: Uint8Array) => Cut<A>
): Effect.Effect<A, HandshakeError> => {
  const from = (partial: Uint8Array): Effect.Effect<A, HandshakeError> =>
    Effect.flatMap(
      Effect.mapError(connection.read, () => make(onEnd, connection)),
      (chunk) => {
        if (Option.isNone(chunk)) return refuse(onEnd, connection)
        const data = partial.length === 0 ? chunk.value : Frame.concat([partial, chunk.value])
        const result = cut(data)
        if (result === "TooLong") return refuse("Malformed", connection)
        if (result === "Incomplete") return from(data)
        const [value, rest] = result
        if (rest.length > 0) connection.unread(rest)
        return Effect.succeed(value)
      }
    )
  return from(new Uint8Array(0))
}

const write = (connection: Connection, bytes: Uint8Array): Effect.Effect<void, HandshakeError> =>
  Effect.mapError(connection.write(bytes), () => make("Ended", connection))
