/**
 * Everything that an embedded tunnel needs from Node except its settings: sockets, relays, certificates, random bytes.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PortableRelay from "../../relay/PortableRelay.js"
import * as RelayFactory from "../../relay/RelayFactory.js"
import type { Settings } from "../../transport/Settings.js"
import { Transport } from "../../transport/Transport.js"
import * as Tunnel from "../../tunnel/Tunnel.js"
import { type Kernel, kernel } from "../kernel/Kernel.js"
import * as KernelRelay from "../kernel/KernelRelay.js"
import * as KernelTransport from "../kernel/KernelTransport.js"
import * as NodeCertificates from "../socket/NodeCertificates.js"
import * as NodeCapacity from "./NodeCapacity.js"
import * as NodeCrypto from "./NodeCrypto.js"
import * as NodeDeflate from "./NodeDeflate.js"
import * as NodeSessionStore from "../store/NodeSessionStore.js"
import * as NodeTransport from "../socket/NodeTransport.js"

export interface Options extends NodeTransport.Options {
  /**
   * How the bytes of TCP visitors are relayed. `portable`: by Node, in this process. `kernel`: by Linux with `splice(2)`.
   *
   * Defaults to `auto`: `kernel` if the machine can do it, else `portable`. `kernel` does the same and logs a warning.
   */
  readonly relay?: "portable" | "kernel" | "auto" | undefined
  /** The directory in which a tunnel keeps its session, for the next process with the same address. Defaults to none. */
  readonly stateDirectory?: string | undefined
  /** The maximum number of threads of the kernel relay. Defaults to the number of cores, at most four. */
  readonly reactors?: number | undefined
}

/** What a tunnel needs, apart from its settings. */
export type Services = Exclude<Tunnel.Environment, Settings>

export const layerWith = (options: Options): Layer.Layer<Services> =>
  Layer.mergeAll(
    // A later layer replaces the same part of an earlier one.
    Tunnel.layerDefaults,
    NodeCapacity.layer,
    NodeCertificates.layer,
    NodeCrypto.layer,
    NodeDeflate.layer,
    options.stateDirectory === undefined ? Layer.empty : NodeSessionStore.layer(options.stateDirectory),
    transportAndRelay(options)
  )

export const layer: Layer.Layer<Services> = Layer.suspend(() => layerWith({}))

// internal

const transportAndRelay = ({
  relay = "auto",
  ...options
}: Options): Layer.Layer<RelayFactory.RelayFactory | Transport> =>
  relay === "portable"
    ? Layer.merge(NodeTransport.layerWith(options), RelayFactory.layerPortable)
    : Layer.unwrapEffect(
        Effect.match(kernel, {
          onSuccess: (kernel) => kernelLayer(kernel, options),
          onFailure: ({ message }) =>
            Layer.mergeAll(
              NodeTransport.layerWith(options),
              Layer.succeed(RelayFactory.RelayFactory, {
                layer: (options) => PortableRelay.layer({ ...options, fallbackReason: message })
              }),
              relay === "kernel" ? Layer.effectDiscard(Effect.logWarning(`no kernel relay: ${message}`)) : Layer.empty
            )
        })
      )

const kernelLayer = (kernel: Kernel, { reactors, ...options }: Omit<Options, "relay">) =>
  Layer.merge(
    Layer.succeed(Transport, KernelTransport.make({ ...options, kernel })),
    KernelRelay.layerFactory(kernel, { threads: reactors })
  )
