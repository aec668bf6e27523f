/**
 * `Capacity` of this process: by the descriptors that it may open and the heap that V8 may use.
 */
import * as Layer from "effect/Layer"
import * as V8 from "node:v8"
import * as Capacity from "../../relay/Capacity.js"
import * as Descriptors from "../socket/Descriptors.js"

export const layer: Layer.Layer<Capacity.Capacity> = Layer.sync(Capacity.Capacity, () =>
  Capacity.fromLimits({ descriptors: Descriptors.limit(), heapBytes: V8.getHeapStatistics().heap_size_limit })
)
