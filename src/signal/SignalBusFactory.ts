/**
 * How the sessions of a tunnel make their signal bus. A host can replace it, or wrap the default one.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import type { Deadlines } from "../core/Deadlines.js"
import type { EventBus } from "../core/EventBus.js"
import type { Refusals } from "../core/Refusals.js"
import * as SignalBus from "./SignalBus.js"
import type { SignalCounts } from "./SignalCounts.js"
import type { SignalFeed } from "./SignalFeed.js"
import type { Settings } from "../transport/Settings.js"

export type Options = SignalBus.Options

export class SignalBusFactory extends Context.Tag("nodepass/SignalBusFactory")<
  SignalBusFactory,
  {
    /** The bus of one session; the session's scope closes it. */
    readonly layer: (
      options?: Options
    ) => Layer.Layer<SignalBus.SignalBus, never, Deadlines | EventBus | Refusals | Settings | SignalCounts | SignalFeed>
  }
>() {}

/** Makes each bus with `SignalBus.layerWith`. */
export const layer: Layer.Layer<SignalBusFactory> = Layer.succeed(SignalBusFactory, {
  layer: (options = {}) => SignalBus.layerWith(options)
})
