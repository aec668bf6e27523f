/**
 * How signals become lines on a control connection, and lines signals. The native dialect numbers and seals each
 * line; another dialect is another value of `Dialect`, and nothing above notices.
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

/**
 * A line that is not taken for a signal.
 *
 * `Seal`: not said by the peer. `Repeated`: said before. `Malformed`: said by the peer, and not understood. Each of
 * these is skipped. `Lost`: the peer said something before it that never arrived, so the channel has been tampered with.
 */
export class LineRefused extends Schema.TaggedError<LineRefused>()("LineRefused", {
  reason: Schema.Literal("Seal", "Repeated", "Malformed", "Lost"),
  /** What was wrong, in words that hold nothing of the line itself. */
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** A signal as it goes out. */
export interface Numbered {
  readonly signal: Signal.Signal
  /** `undefined` for liveness, which is not acknowledged. */
  readonly number: number | undefined
}

/** What goes out in one write. */
export interface Batch {
  /** In order; numbered ones behind each other, and with rising numbers, but for those said again. */
  readonly signals: ReadonlyArray<Numbered>
  /** Every number below this one was handled, if that is news. */
  readonly acknowledged?: number | undefined
}

/** What a line said. */
export interface ReceivedLine {
  readonly signals: ReadonlyArray<Signal.Signal>
  /** The number of the first, where they have numbers; the others follow it. */
  readonly number: number | undefined
  /** The other side has handled every number below this one. */
  readonly acknowledged: number | undefined
}

export interface Dialect {
  readonly encode: (batch: Batch) => Uint8Array
  /** The last line under the key in use; what is encoded from then on is under the next one. */
  readonly rotate: () => Uint8Array
  /** What a line says, without its terminator. */
  readonly decode: (line: Uint8Array) => Either.Either<ReadonlyArray<ReceivedLine>, LineRefused>
}

/** Lines in both directions, each numbered and sealed. */
export interface Channel {
  readonly seal: (text: string) => string
  /** The text of a line. One that says so is the last that this key opens. */
  readonly open: (line: string) => Either.Either<string, LineRefused>
  /** The last line under the key in use. */
  readonly rotate: () => string
}

/** Numbers each direction from 0; a line counts once, in order, and only with the peer's seal. */
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
          ? refuse("Lost", "the change to its key never arrived")
          : refuse("Seal", "its seal is missing or wrong")
      }
      const number = Number(Signal.parameter(text.value, "s") ?? Number.NaN)
      if (!Number.isSafeInteger(number)) return refuse("Malformed", "it has no number")
      if (number < expected) return refuse("Repeated", `its number ${number} was used before`)
      if (number > expected) return refuse("Lost", `number ${expected} never arrived, number ${number} did`)
      expected++
      if (text.value.endsWith("#r")) incoming = incoming.next()
      return Either.right(text.value)
    }
  }
}

export interface Options {
  /** How batches are compressed, if both sides can. Defaults to not at all. */
  readonly codec?: Option.Option<Codec> | undefined
}

/** Bytes of lines from which a batch is deflated: below, a line more or less costs less than the 50 µs that it takes. */
const deflatedFrom = 1024
/** Bytes in a line that several launches share, some at most: the limit of a line is twice that. */
const sharedLimit = 4096
/** Bytes that a deflated line may have inside. */
export const inflatedLimit = 65_536
/** Characters of a deflated line, so that its parameters have room beside it. */
const deflatedLimit = 8000

/** The native dialect over a channel whose keys were agreed on. */
export const native = (channel: Channel, { codec = Option.none() }: Options = {}): Dialect => {
  const deflated = (texts: ReadonlyArray<string>): string | undefined => {
    const length = texts.reduce((sum, text) => sum + text.length + 1, 0)
    if (Option.isNone(codec) || length < deflatedFrom || length > inflatedLimit) return undefined
    const data = Encoding.encodeBase64Url(codec.value.deflate(Frame.encode(texts)))
    return data.length < length && data.length <= deflatedLimit ? `?d=${data}#z` : undefined
  }
  const inflated = (text: string): Either.Either<ReadonlyArray<string>, LineRefused> => {
    const bytes = Encoding.decodeBase64Url(Signal.parameter(text, "d") ?? "")
    if (Option.isNone(codec) || Either.isLeft(bytes))
      return refuse("Malformed", "it is compressed in a way not agreed on")
    return Option.match(codec.value.inflate(bytes.right, inflatedLimit), {
      onNone: () => refuse("Malformed", `it is damaged, or longer than ${inflatedLimit} bytes inside`),
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

/** Signals as lines; launches with numbers in a row share one. */
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
    if (shared !== undefined && (shared.first + shared.launches.length !== number || shared.bytes > sharedLimit))
      close()
    shared ??= { launches: [signal], first: number, bytes: 0 }
    if (shared.launches[0] !== signal) shared.launches.push(signal)
    // Some bytes around an id and a visitor, and an entry of its own.
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
