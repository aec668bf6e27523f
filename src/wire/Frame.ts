/**
 * Messages and lines of bounded length on a byte stream: a message after its length in two bytes, a line before `\n`.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { withoutStack } from "../core/WithoutStack.js"

/** A message exceeds the limit. The stream cannot be read any further: the start of the next message is unknown. */
export class MessageTooLong extends withoutStack(
  Schema.TaggedError<MessageTooLong>()("MessageTooLong", { limit: Schema.Number })
) {
  override get message(): string {
    return `received a message longer than ${this.limit} bytes`
  }
}

export interface Decoder {
  /** Returns the messages that these bytes complete, without their lengths. */
  readonly push: (chunk: Uint8Array) => Either.Either<ReadonlyArray<Uint8Array>, MessageTooLong>
}

export interface Options {
  /** Bytes in a message, at most, without its length. */
  readonly limit: number
}

const terminator = 0x0a
const none = new Uint8Array(0)

/** Bytes of the length in front of a message. */
export const headerLength = 2

export const makeDecoder = ({ limit }: Options): Decoder => {
  let pending: Uint8Array = none
  return {
    push(chunk) {
      let data = pending.length === 0 ? chunk : concat([pending, chunk])
      const messages: Array<Uint8Array> = []
      for (let length = lengthOf(data); length !== undefined; length = lengthOf(data)) {
        if (length > limit) return Either.left(new MessageTooLong({ limit }))
        const end = headerLength + length
        if (data.length < end) break
        messages.push(data.subarray(headerLength, end))
        data = data.subarray(end)
      }
      // Copied, so that the rest of a message does not keep the whole chunk in memory.
      pending = data.length === 0 ? none : data.slice()
      return Either.right(messages)
    }
  }
}

/** The length that these bytes begin with, or `undefined` while it is incomplete. */
export const lengthOf = ([high, low]: Uint8Array): number | undefined =>
  high === undefined || low === undefined ? undefined : high * 256 + low

/** The message after its length. */
export const message = (bytes: Uint8Array): Uint8Array =>
  concat([Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes])

/** The first line and what follows its terminator, or `undefined` while the line has not ended. */
export const split = (data: Uint8Array): readonly [line: Uint8Array, rest: Uint8Array] | undefined => {
  const end = data.indexOf(terminator)
  return end === -1 ? undefined : [data.subarray(0, end), data.subarray(end + 1)]
}

export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

const encoder = new TextEncoder()
// A byte order mark stays part of the line. Otherwise someone could put one in front of a sealed line unnoticed.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** Encodes texts as lines, in one chunk for one write. */
export const encode = (texts: ReadonlyArray<string>): Uint8Array =>
  encoder.encode(texts.map((text) => `${text}\n`).join(""))

export const toText = (line: Uint8Array): string => decoder.decode(line)

export const fromText = (text: string): Uint8Array => encoder.encode(text)
