/**
 * Every signal of a tunnel as it is sent and received, for host programs that watch. The handler of the bus handles it; a
 * listener only sees it.
 *
 * A `PubSub` of the sliding kind, bounded for each listener. With back-pressure a slow listener would stop the bus, and with it
 * the peer and its visitors; dropping the newest would hide what happens now. A listener that does not keep up receives
 * `Lagged` with the number that it missed.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Address } from "../core/Address.js"
import * as Feed from "../core/Feed.js"
import type * as Signal from "../wire/Signal.js"

export interface SeenSignal {
  readonly _tag: "Signal"
  /** `sent`: it was written to the control connection. `received`: it arrived, and is about to be handled. */
  readonly direction: "sent" | "received"
  readonly signal: Signal.Signal
  /** Of a signal that is acknowledged. A number is received once, and sent again until it is acknowledged. */
  readonly number: Option.Option<number>
  /** The other end of the control connection. */
  readonly peer: Address
}

/** What a listener receives. */
export type Heard = SeenSignal | Feed.Lagged

export type Options = Feed.Options

/** Without a listener, a signal costs one comparison for its whole batch. */
export class SignalFeed extends Context.Tag("nodepass/SignalFeed")<SignalFeed, Feed.Feed<SeenSignal>>() {}

/** Nobody listens. For a bus outside a tunnel. */
export const layerNone: Layer.Layer<SignalFeed> = Layer.succeed(SignalFeed, {
  isHeard: () => false,
  publish: () => Effect.void,
  subscribe: () => Effect.succeed(Stream.empty)
})

/** Ends with the layer's scope. */
export const layer: Layer.Layer<SignalFeed> = Layer.scoped(SignalFeed, Feed.make<SeenSignal>())
