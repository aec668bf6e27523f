/**
 * All that a tunnel needs of the machine it runs on, for hosts to embed it: sockets, chance and certificates.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Relay from "../../relay/Relay.js"
import * as RelayFactory from "../../relay/RelayFactory.js"
import type { Settings } from "../../transport/Settings.js"
import { Transport } from "../../transport/Transport.js"
import * as Tunnel from "../../tunnel/Tunnel.js"
import { type Kernel, kernel } from "../kernel/Kernel.js"
import * as KernelRelay from "../kernel/KernelRelay.js"
import * as KernelTransport from "../kernel/KernelTransport.js"
import * as NodeCertificates from "../socket/NodeCertificates.js"
import * as NodeCrypto from "./NodeCrypto.js"
import * as NodeDeflate from "./NodeDeflate.js"
import * as NodeSessionStore from "../store/NodeSessionStore.js"
import * as NodeTransport from "../socket/NodeTransport.js"

export interface Options extends NodeTransport.Options {
  /**
   * Who moves the bytes of TCP. `portable`: this process, through Node. `kernel`: Linux itself, as far as it can.
   *
   * Defaults to `auto`: the kernel where it can be had. Where it cannot, `kernel` warns of it.
   */
  readonly relay?: "portable" | "kernel" | "auto" | undefined
  /** Where a server that stops leaves its session for the next one. Defaults to nowhere. */
  readonly stateDirectory?: string | undefined
  /** Threads that serve the kernel relay at most. Defaults to one for each core, and four where there are more. */
  readonly reactors?: number | undefined
}

/** What a tunnel needs, apart from its settings. */
export type Services = Exclude<Tunnel.Environment, Settings>

export const layerWith = (options: Options): Layer.Layer<Services> =>
  Layer.mergeAll(
    // A later layer replaces the same part of an earlier one.
    Tunnel.layerDefaults,
    NodeCertificates.layer,
    NodeCrypto.layer,
    NodeDeflate.layer,
    options.stateDirectory === undefined ? Layer.empty : NodeSessionStore.layer(options.stateDirectory),
    sockets(options)
  )

export const layer: Layer.Layer<Services> = Layer.suspend(() => layerWith({}))

// internal

const sockets = ({ relay = "auto", ...options }: Options): Layer.Layer<RelayFactory.RelayFactory | Transport> =>
  relay === "portable"
    ? Layer.merge(NodeTransport.layerWith(options), RelayFactory.layerPortable)
    : Layer.unwrapEffect(
        Effect.match(kernel, {
          onSuccess: (kernel) => ofKernel(kernel, options),
          onFailure: ({ message }) =>
            Layer.mergeAll(
              NodeTransport.layerWith(options),
              Layer.succeed(RelayFactory.RelayFactory, {
                layer: (options) => Relay.layer({ ...options, fallbackReason: message })
              }),
              relay === "kernel" ? Layer.effectDiscard(Effect.logWarning(`no kernel relay: ${message}`)) : Layer.empty
            )
        })
      )

const ofKernel = (kernel: Kernel, { reactors, ...options }: Omit<Options, "relay">) =>
  Layer.merge(
    Layer.succeed(Transport, KernelTransport.make({ ...options, kernel })),
    KernelRelay.layerFactory(kernel, { threads: reactors })
  )
