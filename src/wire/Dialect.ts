/**
 * Encodes signals as lines of a control connection, and decodes them. The native dialect sends lines in messages of the Noise transport.
 * Another dialect is another value of `Dialect`; no other room depends on which one is in use.
 */
import type * as Arr from "effect/Array"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Codec } from "./Deflate.js"
import * as Frame from "./Frame.js"
import * as Noise from "./Noise.js"
import * as Signal from "./Signal.js"
import { withoutStack } from "../core/WithoutStack.js"

/** A line that the peer sent and that cannot be decoded. It is skipped. */
export class LineRefused extends withoutStack(
  Schema.TaggedError<LineRefused>()("LineRefused", {
    /** What is wrong. Contains nothing of the line, which may be secret. */
    detail: Schema.String
  })
) {
  override get message(): string {
    return `line of the control connection refused: ${this.detail}`
  }
}

/** A message that is not the next one of the peer: it was altered, removed, repeated or reordered on its way. */
export class Tampered extends withoutStack(Schema.TaggedError<Tampered>()("Tampered", {})) {
  override get message(): string {
    return "received a message that is not the next one of the peer"
  }
}

/** A signal to send. */
export interface Numbered {
  readonly signal: Signal.Signal
  /** `undefined` for a signal that is not acknowledged, such as a ping. */
  readonly number: number | undefined
}

/** The content of one write. */
export interface Batch {
  /** In the order in which they are sent. Numbers rise, except for resends. */
  readonly signals: ReadonlyArray<Numbered>
  /** Every number below this one was handled. Defaults to nothing new. */
  readonly acknowledged?: number | undefined
}

/** The content of one line. */
export interface ReceivedLine {
  readonly signals: ReadonlyArray<Signal.Signal>
  /** The number of the first signal; the others follow by one. `undefined` when they have none. */
  readonly number: number | undefined
  /** The other side has handled every number below this one. */
  readonly acknowledged: number | undefined
}

export interface Dialect {
  /** The messages of a batch, each after its length. */
  readonly encode: (batch: Batch) => Uint8Array
  /** The last message encrypted with the current key. Everything encoded afterwards is encrypted with the next key. */
  readonly rotate: () => Uint8Array
  /** Decodes a message, given without its length: each of its lines. No later message can be decoded after `Tampered`. */
  readonly decode: (
    message: Uint8Array
  ) => Either.Either<ReadonlyArray<Either.Either<ReceivedLine, LineRefused>>, Tampered>
}

export interface Options {
  /** Compresses large batches, if both sides agreed on it. Defaults to no compression. */
  readonly codec?: Option.Option<Codec> | undefined
}

/** Bytes of lines from which a batch is deflated. For fewer bytes the 50 µs of deflating are not worth it. */
const minDeflatedBytes = 1024
/** Approximate bytes in a line that several launches share, at most. */
const maxSharedBytes = 4096
/** Bytes of lines in a message, at most. */
const maxPlainBytes = 16_384
/** Bytes of a message, at most. */
export const maxMessageBytes = maxPlainBytes + Noise.tagLength
/** Bytes of a deflated message after it is inflated, at most. */
export const maxInflatedBytes = 65_536
/** The first byte of a deflated message. No line begins with it. */
const deflatedMark = 0

/** The native dialect, on a control connection with these ciphers. */
export const native = ({ receiving, sending }: Noise.Ciphers, { codec = Option.none() }: Options = {}): Dialect => {
  const seal = (bytes: Uint8Array) => Frame.message(sending.encrypt(bytes))
  const deflated = (text: string): Uint8Array | undefined => {
    if (Option.isNone(codec) || text.length < minDeflatedBytes || text.length > maxInflatedBytes) return undefined
    const data = codec.value.deflate(Frame.fromText(text))
    return data.length < text.length && data.length < maxPlainBytes
      ? Frame.concat([Uint8Array.of(deflatedMark), data])
      : undefined
  }
  const inflated = (bytes: Uint8Array): Either.Either<string, LineRefused> =>
    Option.match(
      Option.flatMap(codec, ({ inflate }) => inflate(bytes.subarray(1), maxInflatedBytes)),
      {
        onNone: () =>
          refuse(
            `it is compressed, which the handshake did not agree on, or not by DEFLATE, or longer than ${maxInflatedBytes} bytes`
          ),
        onSome: (lines) => Either.right(Frame.toText(lines))
      }
    )
  return {
    encode: ({ acknowledged, signals }) => {
      const [first = "", ...others] = linesOf(signals)
      const texts = [acknowledged === undefined ? first : Signal.withParameter(first, "a", acknowledged), ...others]
      const whole = deflated(texts.join("\n"))
      if (whole !== undefined) return seal(whole)
      return Frame.concat(groupsOf(texts).map((group) => seal(Frame.fromText(group.join("\n")))))
    },
    rotate: () => {
      const message = seal(Frame.fromText(rotation))
      sending.rekey()
      return message
    },
    decode: (message) => {
      const opened = receiving.decrypt(message)
      if (Option.isNone(opened)) return Either.left(new Tampered())
      const bytes = opened.value
      const text = bytes[0] === deflatedMark ? inflated(bytes) : Either.right(Frame.toText(bytes))
      if (Either.isLeft(text)) return Either.right([Either.left(text.left)])
      if (text.right === rotation) receiving.rekey()
      return Either.right(text.right.split("\n").map(receivedLine))
    }
  }
}

// internal

const rotation = Signal.toText(new Signal.Rotation())

const refuse = (detail: string): Either.Either<never, LineRefused> => Either.left(new LineRefused({ detail }))

/** The lines of each message, so that none exceeds the limit. */
const groupsOf = (texts: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => {
  const groups: Array<Array<string>> = []
  let left = 0
  for (const text of texts) {
    left -= text.length + 1
    if (left < 0) {
      groups.push([])
      left = maxPlainBytes - text.length
    }
    groups.at(-1)?.push(text)
  }
  return groups
}

/** Encodes signals as lines. Launches with consecutive numbers share a line. */
const linesOf = (signals: ReadonlyArray<Numbered>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let shared: { readonly launches: Arr.NonEmptyArray<Signal.Launch>; readonly first: number; bytes: number } | undefined
  const close = () => {
    if (shared !== undefined) lines.push(numbered(Signal.launchesText(shared.launches), shared.first))
    shared = undefined
  }
  for (const { number, signal } of signals) {
    if (signal._tag !== "Launch" || number === undefined) {
      close()
      lines.push(numbered(Signal.toText(signal), number))
      continue
    }
    if (shared === undefined || !sharesWith(shared.launches[0], signal)) close()
    if (shared !== undefined && (shared.first + shared.launches.length !== number || shared.bytes > maxSharedBytes))
      close()
    shared ??= { launches: [signal], first: number, bytes: 0 }
    if (shared.launches[0] !== signal) shared.launches.push(signal)
    // 16 bytes for the id, the port and separators, and 8 more for an entry of its own.
    shared.bytes +=
      16 +
      signal.visitor.host.length +
      Option.match(signal.entry, { onNone: () => 0, onSome: ({ host }) => host.length + 8 })
  }
  close()
  return lines
}

const sharesWith = (first: Signal.Launch, { entry, protocol }: Signal.Launch): boolean =>
  first.protocol === protocol && Option.isSome(first.entry) === Option.isSome(entry)

const numbered = (text: string, number: number | undefined): string =>
  number === undefined ? text : Signal.withParameter(text, "q", number)

const receivedLine = (text: string): Either.Either<ReceivedLine, LineRefused> =>
  Either.mapBoth(Signal.listFromText(text), {
    onLeft: (detail) => new LineRefused({ detail }),
    onRight: (signals) => ({ signals, number: count(text, "q"), acknowledged: count(text, "a") })
  })

const count = (text: string, name: string): number | undefined => {
  const value = Number(Signal.parameter(text, name) ?? Number.NaN)
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
