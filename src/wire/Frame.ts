/**
 * Lines of bounded length on a byte stream, each ended by `\n`.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { withoutStack } from "../core/WithoutStack.js"

/** A line exceeds the limit. The stream cannot be read any further: the start of the next line is unknown. */
export class LineTooLong extends withoutStack(
  Schema.TaggedError<LineTooLong>()("LineTooLong", { limit: Schema.Number })
) {
  override get message(): string {
    return `received a line longer than ${this.limit} bytes`
  }
}

export interface Decoder {
  /** Returns the lines that these bytes complete, without their terminators. */
  readonly push: (chunk: Uint8Array) => Either.Either<ReadonlyArray<Uint8Array>, LineTooLong>
}

export interface Options {
  /** Bytes in a line, at most, without the terminator. */
  readonly limit: number
}

const terminator = 0x0a
const none = new Uint8Array(0)

export const makeDecoder = ({ limit }: Options): Decoder => {
  let pending: Uint8Array = none
  return {
    push(chunk) {
      const data = pending.length === 0 ? chunk : concat([pending, chunk])
      const lines: Array<Uint8Array> = []
      let start = 0
      for (let end = data.indexOf(terminator); end !== -1; end = data.indexOf(terminator, start)) {
        if (end - start > limit) return Either.left(new LineTooLong({ limit }))
        lines.push(data.subarray(start, end))
        start = end + 1
      }
      // Copied, so that the rest of a line does not keep the whole chunk in memory.
      pending = start === data.length ? none : data.slice(start)
      return pending.length > limit ? Either.left(new LineTooLong({ limit })) : Either.right(lines)
    }
  }
}

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
