/**
 * The last known state of each peer of a tunnel: connected, or why not. `Checkpoint.reason` is made from it.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

/** A peer, and why it is away; `undefined` while it is connected. */
export interface Peer {
  readonly name: string
  readonly away: string | undefined
}

export class Peers extends Context.Tag("nodepass/Peers")<
  Peers,
  {
    /** Replaces what was known of the peer. */
    readonly report: (peer: Peer) => void
    /** The tunnel does not use the peer any more. */
    readonly forget: (name: string) => void
    /** Those that were reported, the first reported first. */
    readonly list: () => ReadonlyArray<Peer>
  }
>() {}

export const layer: Layer.Layer<Peers> = Layer.sync(Peers, () => {
  const peers = new Map<string, Peer>()
  return {
    report: (peer) => void peers.set(peer.name, peer),
    forget: (name) => void peers.delete(name),
    list: () => [...peers.values()]
  }
})

/** The name of a server's client: there is one at a time. */
export const client = "client"

/** How the peers keep visitors from being served, or change which of them serves; empty when neither is the case. */
export const explain = (peers: ReadonlyArray<Peer>, isServing: boolean): string => {
  const reasons = peers.flatMap(({ away, name }) =>
    away === undefined ? [] : [away.includes(name) ? away : `${name}: ${away}`]
  )
  if (reasons.length === 0) return isServing ? "" : "no control connection yet"
  if (!isServing) return reasons.join("; ")
  const connected = peers.filter(({ away }) => away === undefined).map(({ name }) => name)
  return connected.length === 0 ? "" : `connected to ${connected.join(", ")}; not connected: ${reasons.join("; ")}`
}
