/**
 * How the tunnels of a host make their relays: through this process, or through the kernel (`node/kernel/KernelRelay`).
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import type { Meter } from "./Meter.js"
import * as PortableRelay from "./PortableRelay.js"
import type * as Relay from "./Relay.js"
import type { Throttle } from "./Throttle.js"

export class RelayFactory extends Context.Tag("nodepass/RelayFactory")<
  RelayFactory,
  {
    /** The relay of one tunnel. It keeps the contract of `Relay`; `test/compliance/Relay.ts` checks it. */
    readonly layer: (options?: Relay.Options) => Layer.Layer<Relay.Relay, never, Meter | Throttle>
  }
>() {}

/** Relays through this process, chunk by chunk, over any `Connection`. */
export const layerPortable: Layer.Layer<RelayFactory> = Layer.succeed(RelayFactory, { layer: PortableRelay.layer })
