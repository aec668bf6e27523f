/**
 * Encodes signals as lines of a control connection, and decodes them. The native dialect numbers and seals each line.
 * Another dialect is another value of `Dialect`; no other room depends on which one is in use.
 */
import * as Arr from "effect/Array"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Codec } from "./Deflate.js"
import * as Frame from "./Frame.js"
import type * as Key from "./Key.js"
import * as Signal from "./Signal.js"
import { withoutStack } from "../core/WithoutStack.js"

/**
 * A line that was not accepted.
 *
 * `Seal`: the peer did not send it. `Repeated`: it was received before. `Malformed`: the peer sent it, and it cannot be decoded.
 * Lines like these are skipped. `Lost`: an earlier line of the peer is missing, so the channel was tampered with.
 */
export class LineRefused extends withoutStack(
  Schema.TaggedError<LineRefused>()("LineRefused", {
    reason: Schema.Literal("Seal", "Repeated", "Malformed", "Lost"),
    /** What is wrong. Contains nothing of the line, which may be secret or forged. */
    detail: Schema.String
  })
) {
  override get message(): string {
    return `line of the control connection refused: ${this.detail}`
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
  readonly encode: (batch: Batch) => Uint8Array
  /** The last line sealed with the current key. Everything encoded afterwards is sealed with the next key. */
  readonly rotate: () => Uint8Array
  /** Decodes a line, given without its terminator. */
  readonly decode: (line: Uint8Array) => Either.Either<ReadonlyArray<ReceivedLine>, LineRefused>
}

/** Numbers and seals the lines of both directions. */
export interface Channel {
  readonly seal: (text: string) => string
  /** The text of a line, without its seal. After a rotation line, only the next key opens lines. */
  readonly open: (line: string) => Either.Either<string, LineRefused>
  /** The last line sealed with the current key. */
  readonly rotate: () => string
}

/** Numbers each direction from 0. Opens a line once, in order, and only with the peer's seal. */
export const makeChannel = (options: { readonly outgoing: Key.Seal; readonly incoming: Key.Seal }): Channel => {
  let { incoming, outgoing } = options
  let next = 0
  let expected = 0
  const seal = (text: string) => outgoing.seal(Signal.withParameter(text, "s", next++))
  return {
    seal,
    rotate: () => {
      const line = seal(Signal.toText(new Signal.Rotation()))
      outgoing = outgoing.next()
      return line
    },
    open: (line) => {
      const text = incoming.open(line)
      if (Option.isNone(text)) {
        return Option.isSome(incoming.next().open(line))
          ? refuse("Lost", "the line that announces its key is missing")
          : refuse("Seal", "the seal is missing or wrong")
      }
      const number = Number(Signal.parameter(text.value, "s") ?? Number.NaN)
      if (!Number.isSafeInteger(number)) return refuse("Malformed", "it has no line number")
      if (number < expected) return refuse("Repeated", `line ${number} was received before`)
      if (number > expected) return refuse("Lost", `line ${expected} is missing, line ${number} arrived`)
      expected++
      if (text.value.endsWith("#r")) incoming = incoming.next()
      return Either.right(text.value)
    }
  }
}

export interface Options {
  /** Compresses large batches, if both sides agreed on it. Defaults to no compression. */
  readonly codec?: Option.Option<Codec> | undefined
}

/** Bytes of lines from which a batch is deflated. For fewer bytes the 50 µs of deflating are not worth it. */
const minDeflatedBytes = 1024
/** Approximate bytes in a line that several launches share, at most. The limit of a line is twice that. */
const maxSharedBytes = 4096
/** Bytes of a deflated line after it is inflated, at most. */
export const maxInflatedBytes = 65_536
/** Characters of deflated data in a line, at most: the other parameters need room too. */
const maxDeflatedChars = 8000

/** The native dialect over a channel. */
export const native = (channel: Channel, { codec = Option.none() }: Options = {}): Dialect => {
  const deflated = (texts: ReadonlyArray<string>): string | undefined => {
    const length = texts.reduce((sum, text) => sum + text.length + 1, 0)
    if (Option.isNone(codec) || length < minDeflatedBytes || length > maxInflatedBytes) return undefined
    const data = Encoding.encodeBase64Url(codec.value.deflate(Frame.encode(texts)))
    return data.length < length && data.length <= maxDeflatedChars ? `?d=${data}#z` : undefined
  }
  const inflated = (text: string): Either.Either<ReadonlyArray<string>, LineRefused> => {
    const bytes = Encoding.decodeBase64Url(Signal.parameter(text, "d") ?? "")
    if (Option.isNone(codec) || Either.isLeft(bytes))
      return refuse("Malformed", "it is compressed, which the handshake did not agree on, or not in base64url")
    return Option.match(codec.value.inflate(bytes.right, maxInflatedBytes), {
      onNone: () => refuse("Malformed", `it cannot be inflated, or is longer than ${maxInflatedBytes} bytes inflated`),
      onSome: (lines) => Either.right(Frame.toText(lines).trimEnd().split("\n"))
    })
  }
  return {
    encode: ({ acknowledged, signals }) => {
      const texts = linesOf(signals)
      const whole = deflated(texts)
      const [first = "", ...others] = whole === undefined ? texts : [whole]
      const head = acknowledged === undefined ? first : Signal.withParameter(first, "a", acknowledged)
      return Frame.encode([head, ...others].map(channel.seal))
    },
    rotate: () => Frame.encode([channel.rotate()]),
    decode: (line) =>
      Either.flatMap(channel.open(Frame.toText(line)), (text) => {
        if (!text.endsWith("#z")) return Either.map(receivedLine(text), Arr.of)
        return Either.flatMap(inflated(text), (texts) =>
          Either.map(Either.all(texts.map(receivedLine)), (inside) => [
            { signals: [], number: undefined, acknowledged: count(text, "a") },
            ...inside
          ])
        )
      })
  }
}

// internal

const refuse = (reason: LineRefused["reason"], detail: string): Either.Either<never, LineRefused> =>
  Either.left(new LineRefused({ reason, detail }))

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
    onLeft: (detail) => new LineRefused({ reason: "Malformed", detail }),
    onRight: (signals) => ({ signals, number: count(text, "q"), acknowledged: count(text, "a") })
  })

const count = (text: string, name: string): number | undefined => {
  const value = Number(Signal.parameter(text, name) ?? Number.NaN)
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
