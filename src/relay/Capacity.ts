/**
 * How many visitors this machine can serve at once, by its descriptors and its memory.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

export class Capacity extends Context.Tag("nodepass/Capacity")<
  Capacity,
  {
    /** The most visitors at a time. `Slots` holds no more, whatever `slot` allows. */
    readonly visitors: number
  }
>() {}

export const layer = (visitors: number): Layer.Layer<Capacity> => Layer.succeed(Capacity, { visitors })

/** For hosts without a limit. */
export const layerUnlimited: Layer.Layer<Capacity> = layer(Infinity)
