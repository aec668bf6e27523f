/**
 * Text to bytes and back, and everything that a connection receives.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Connection, TransportError } from "../src/transport/Transport.js"
import * as Frame from "../src/wire/Frame.js"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const utf8 = (text: string): Uint8Array => encoder.encode(text)
export const textOf = (bytes: Uint8Array): string => decoder.decode(bytes)

export const equal = (left: Uint8Array, right: Uint8Array): boolean => Buffer.compare(left, right) === 0

/** Reads until the peer half-closes. */
export const readAll = (connection: Connection): Effect.Effect<Uint8Array, TransportError> =>
  Effect.gen(function* () {
    const parts: Array<Uint8Array> = []
    while (true) {
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return Frame.concat(parts)
      parts.push(chunk.value)
    }
  })

/** Reads until the peer half-closes, as text. */
export const readText = (connection: Connection): Effect.Effect<string, TransportError> =>
  Effect.map(readAll(connection), textOf)

/** Reads text of at least this many bytes; "(end)" stands for the peer's half-close. */
export const readLength = (connection: Connection, length: number): Effect.Effect<string, TransportError> =>
  Effect.gen(function* () {
    let text = ""
    while (text.length < length) {
      const chunk = yield* connection.read
      if (Option.isNone(chunk)) return `${text}(end)`
      text += textOf(chunk.value)
    }
    return text
  })
