/**
 * The events of a tunnel, which `Tunnel.events` publishes: schemas only.
 */
import * as Schema from "effect/Schema"
import { Address } from "./Address.js"

/**
 * What was refused:
 * - `dial`: a pool connection that could not be opened
 * - `dropped`: a peer on the tunnel port that was reset at once, because too many came
 * - `handshake`: a peer on the tunnel port that did not authenticate
 * - `signal`: a line of the peer that could not be used
 * - `slot`: a visitor, because every slot is in use
 * - `pool`: a visitor that got no pool connection in time
 * - `target`: a visitor whose target did not accept the connection
 * - `launch`: a visitor whose pool connection was lost
 * - `header`: a visitor that did not send the required PROXY header
 * - `evicted`: a UDP session, because another visitor needed its slot
 * - `datagram`: a datagram that is too large, or whose queue is full
 */
export const refusalKinds = [
  "dial",
  "dropped",
  "handshake",
  "signal",
  "slot",
  "pool",
  "target",
  "launch",
  "header",
  "evicted",
  "datagram"
] as const

const address = Schema.typeSchema(Address)

/** A control connection is attached. With `resumed` it continues the previous session. */
export const SessionUp = Schema.TaggedStruct("SessionUp", { peer: address, resumed: Schema.Boolean })

/** The control connection is lost. With `over` the session ended too; otherwise it waits for the peer to come back. */
export const SessionLost = Schema.TaggedStruct("SessionLost", { why: Schema.String, over: Schema.Boolean })

/** A pool connection was launched for a visitor. `sent`: the visitor is on this side. `received`: it is on the other side. */
export const Launched = Schema.TaggedStruct("Launched", {
  direction: Schema.Literal("sent", "received"),
  protocol: Schema.Literal("tcp", "udp"),
  visitor: address
})

/** Something could not be served, `times` times. */
export const Refused = Schema.TaggedStruct("Refused", {
  kind: Schema.Literal(...refusalKinds),
  why: Schema.String,
  times: Schema.Number
})

/** The pool became empty, is no longer empty, or changed its capacity. */
export const PoolLevel = Schema.TaggedStruct("PoolLevel", {
  idle: Schema.Number,
  capacity: Schema.Number,
  waiting: Schema.Number
})

/** A key was replaced: the one that seals what this side sends in its session, or the tunnel key. */
export const Rotated = Schema.TaggedStruct("Rotated", { keys: Schema.Literal("session", "tunnel") })

/** The listener did not keep up, and lost this many events before the next one. */
export const Lagged = Schema.TaggedStruct("Lagged", { lost: Schema.Number })

export const TunnelEvent = Schema.Union(
  SessionUp,
  SessionLost,
  Launched,
  Refused,
  PoolLevel,
  Rotated,
  Lagged
).annotations({ identifier: "TunnelEvent" })
export type TunnelEvent = typeof TunnelEvent.Type
