/**
 * All that a tunnel needs of the machine it runs on, for hosts to embed it: sockets, chance and certificates.
 */
import * as Layer from "effect/Layer"
import type { Certificates } from "../Certificates.js"
import type { Crypto } from "../Crypto.js"
import type { Transport } from "../Transport.js"
import * as NodeCertificates from "./NodeCertificates.js"
import * as NodeCrypto from "./NodeCrypto.js"
import * as NodeTransport from "./NodeTransport.js"
import * as KernelRelay from "./kernel/KernelRelay.js"

export interface Options extends NodeTransport.Options, KernelRelay.Options {}

export const layerWith = (options: Options): Layer.Layer<Certificates | Crypto | Transport> =>
  Layer.mergeAll(
    NodeCertificates.layer,
    NodeCrypto.layer,
    NodeTransport.layerWith(options),
    KernelRelay.layerWay(options)
  )

export const layer: Layer.Layer<Certificates | Crypto | Transport> = layerWith({})
