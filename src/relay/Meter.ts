/**
 * Bytes that passed, by protocol and direction. Plain counters: the data path adds to them for every chunk.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

/** Bytes so far. `rx` came from the other end of the tunnel (single-end: from the target), `tx` went to it. */
export interface Traffic {
  tcpRx: number
  tcpTx: number
  udpRx: number
  udpTx: number
}

export class Meter extends Context.Tag("nodepass/Meter")<
  Meter,
  {
    /** The counters, to which relays add. */
    readonly traffic: Traffic
  }
>() {}

export const layer: Layer.Layer<Meter> = Layer.sync(Meter, () =>
  Meter.of({ traffic: { tcpRx: 0, tcpTx: 0, udpRx: 0, udpTx: 0 } })
)
