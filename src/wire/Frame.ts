/**
 * Lines on a byte stream: cut at `\n`, bounded, whatever the chunks they arrive in.
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/** A line went past the limit before it ended. The stream cannot be read on: nobody knows where the next line starts. */
export class LineTooLong extends Schema.TaggedError<LineTooLong>()("LineTooLong", { limit: Schema.Number }) {
  override get message(): string {
    return `a line is longer than ${this.limit} bytes`
  }
}

export interface Decoder {
  /** Feeds bytes and returns the lines they complete, without their terminators. */
  readonly push: (chunk: Uint8Array) => Either.Either<ReadonlyArray<Uint8Array>, LineTooLong>
}

export interface Options {
  /** Bytes in a line at most, its terminator not counted. */
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
      // A copy: the tail must not keep a whole chunk alive.
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
// A byte order mark is a part of the line, or one could be put in front of a sealed line unseen.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** The bytes of texts as lines, in one piece for one write. */
export const encode = (texts: ReadonlyArray<string>): Uint8Array =>
  encoder.encode(texts.map((text) => `${text}\n`).join(""))

export const toText = (line: Uint8Array): string => decoder.decode(line)
