/**
 * How signals become lines on a control connection, and lines signals. The native dialect numbers and seals each
 * line; another dialect is another value of `Dialect`, and nothing above notices.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
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

export interface Dialect {
  /** Signals as bytes for one write, in order. */
  readonly encode: (signals: ReadonlyArray<Signal.Signal>) => Uint8Array
  /** The signal of a line, without its terminator. */
  readonly decode: (line: Uint8Array) => Either.Either<Signal.Signal, LineRefused>
}

/** Lines in both directions, each numbered and sealed. */
export interface Channel {
  readonly seal: (text: string) => string
  readonly open: (line: string) => Either.Either<string, LineRefused>
}

/** Numbers each direction from 0; a line counts once, in order, and only with the peer's seal. */
export const makeChannel = (options: { readonly outgoing: Key.Seal; readonly incoming: Key.Seal }): Channel => {
  let next = 0
  let expected = 0
  return {
    seal: (text) => options.outgoing.seal(Signal.withParameter(text, "s", next++)),
    open: (line) => {
      const text = options.incoming.open(line)
      if (Option.isNone(text)) return refuse("Seal", "its seal is missing or wrong")
      const number = Number(Signal.parameter(text.value, "s") ?? Number.NaN)
      if (!Number.isSafeInteger(number)) return refuse("Malformed", "it has no number")
      if (number < expected) return refuse("Repeated", `its number ${number} was used before`)
      if (number > expected) return refuse("Lost", `number ${expected} never arrived, number ${number} did`)
      expected++
      return Either.right(text.value)
    }
  }
}

/** The native dialect over a channel whose keys were agreed on. */
export const native = (channel: Channel): Dialect => ({
  encode: (signals) => Frame.encode(signals.map((signal) => channel.seal(Signal.toText(signal)))),
  decode: (line) =>
    Either.flatMap(channel.open(Frame.toText(line)), (text) =>
      Either.mapLeft(Signal.fromText(text), (detail) => new LineRefused({ reason: "Malformed", detail }))
    )
})

// internal

const refuse = (reason: LineRefused["reason"], detail: string): Either.Either<never, LineRefused> =>
  Either.left(new LineRefused({ reason, detail }))
