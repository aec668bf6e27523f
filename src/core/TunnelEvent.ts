/**
 * What happens inside a tunnel, for whoever listens to `Tunnel.events`: schemas only.
 */
import * as Schema from "effect/Schema"
import { Address } from "./Address.js"

/**
 * What a refusal is of. `dial`: a pool connection that could not be opened. `handshake`: a newcomer on the tunnel port.
 * `signal`: a line of the peer. `slot`: a visitor, every slot being held. `pool`: a visitor for whom no pool connection
 * came in time. `target`: a visitor whose target did not answer. `launch`: a visitor whose pool connection was gone.
 * `header`: a visitor without the PROXY header that was to come first. `datagram`: a datagram too large, or with no room
 * on its way.
 */
export const refusalKinds = [
  "dial",
  "handshake",
  "signal",
  "slot",
  "pool",
  "target",
  "launch",
  "header",
  "datagram"
] as const

const address = Schema.typeSchema(Address)

/** A control connection stands: of a new session, or of the one before, which goes on. */
export const SessionUp = Schema.TaggedStruct("SessionUp", { peer: address, resumed: Schema.Boolean })

/** The control connection is lost, and if `over` the session with it; else it waits for the peer. */
export const SessionLost = Schema.TaggedStruct("SessionLost", { why: Schema.String, over: Schema.Boolean })

/** A visitor was given a pool connection. `sent`: by this side, which it came to; `received`: by the other one. */
export const Launched = Schema.TaggedStruct("Launched", {
  direction: Schema.Literal("sent", "received"),
  protocol: Schema.Literal("tcp", "udp"),
  visitor: address
})

/** Something could not be served; `times` is how much of it. */
export const Refused = Schema.TaggedStruct("Refused", {
  kind: Schema.Literal(...refusalKinds),
  why: Schema.String,
  times: Schema.Number
})

/** The pool became empty, is so no longer, or has another capacity. */
export const PoolLevel = Schema.TaggedStruct("PoolLevel", {
  idle: Schema.Number,
  capacity: Schema.Number,
  waiting: Schema.Number
})

/** Keys were replaced: those that seal what this side says in its session, or the tunnel's own. */
export const Rotated = Schema.TaggedStruct("Rotated", { keys: Schema.Literal("session", "tunnel") })

/** The listener did not keep up: so many events before the next one are lost to it. */
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
