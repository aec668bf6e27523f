/**
 * What requests to the master's API carry, and what it returns beside instances.
 */
import * as Schema from "effect/Schema"
import { Figures } from "./HostFigures.js"
import { Alias, PatchPeer, Tags } from "./Instance.js"
import { Point } from "./TrafficHistory.js"

/** One sentence for the field, in place of one for each alternative of its schema. */
const withMessage = (message: string) => ({ message: () => ({ message, override: true }) })

/** An object without unknown fields. */
const strict = <Fields extends Schema.Struct.Fields>(identifier: string, fields: Fields) =>
  Schema.Struct(fields).annotations({ identifier, parseOptions: { onExcessProperty: "error" } })

const Url = Schema.String.pipe(Schema.maxLength(8192)).annotations(withMessage("expected the text of a URL"))
const Flag = Schema.Boolean.annotations(withMessage("expected true or false"))

export const CreateInstance = strict("CreateInstance", { url: Url, alias: Schema.optional(Alias) })
export const PatchInstance = strict("PatchInstance", {
  alias: Schema.optional(Alias),
  restart: Schema.optional(Flag),
  action: Schema.optional(
    Schema.Literal("start", "stop", "restart", "reset").annotations(
      withMessage("expected one of start, stop, restart, reset")
    )
  ),
  meta: Schema.optional(strict("PatchMeta", { peer: Schema.optional(PatchPeer), tags: Schema.optional(Tags) }))
})
export const PutInstance = strict("PutInstance", { url: Url })
export const Rollback = strict("Rollback", {
  version: Schema.Int.pipe(Schema.between(1, 2_147_483_647)).annotations(withMessage("expected a whole number from 1"))
})
export const Rename = strict("Rename", { alias: Alias })

/** A whole number in a query, not below `minimum`. */
const integer = (minimum: number, expected: string) =>
  Schema.NumberFromString.pipe(Schema.int(), Schema.between(minimum, Number.MAX_SAFE_INTEGER)).annotations({
    ...withMessage(expected),
    jsonSchema: { type: "integer", minimum, maximum: Number.MAX_SAFE_INTEGER }
  })
const Follow = Schema.transformLiterals(["0", false], ["1", true], ["false", false], ["true", true]).annotations(
  withMessage("expected true or false")
)

/** The query of endpoints that accept a ticket in place of the API key. */
export const TicketQuery = Schema.Struct({
  ticket: Schema.optional(Schema.String.annotations({ description: "replaces the API key; from POST /events/ticket" }))
})
export const LogsQuery = Schema.Struct({
  follow: Schema.optional(Follow),
  lines: Schema.optional(integer(0, "expected a whole number from 0")),
  ...TicketQuery.fields
})
export const TrafficQuery = Schema.Struct({
  since: Schema.optional(integer(0, "expected epoch milliseconds")),
  step: Schema.optional(integer(1, "expected milliseconds from 1"))
})
export const TcpingQuery = Schema.Struct({ target: Schema.String.annotations(withMessage("expected host:port")) })

export const MasterInfo = Schema.Struct({
  mid: Schema.String.annotations({ description: "16 hex digits; never changes" }),
  alias: Schema.String,
  os: Schema.String,
  arch: Schema.String,
  ...Figures.fields,
  uptime: Schema.Number.annotations({ description: "seconds since the master's start" }),
  ver: Schema.String,
  name: Schema.String,
  log: Schema.String,
  tls: Schema.String,
  crt: Schema.String,
  key: Schema.String
}).annotations({ identifier: "MasterInfo" })
export type MasterInfo = typeof MasterInfo.Type

export const TcpingResult = Schema.Struct({
  target: Schema.String,
  connected: Schema.Boolean,
  latency: Schema.Number.annotations({ description: "milliseconds" }),
  error: Schema.NullOr(Schema.String)
}).annotations({ identifier: "TcpingResult" })
export type TcpingResult = typeof TcpingResult.Type

export const Ticket = Schema.Struct({
  ticket: Schema.String,
  /** Epoch milliseconds. */
  expires: Schema.Number
}).annotations({ identifier: "Ticket" })
export type Ticket = typeof Ticket.Type

const Check = Schema.Struct({ ok: Schema.Boolean, reasons: Schema.Array(Schema.String) })
/** `live`: the master answers requests. `ready`: all instances have been started, none is in error, and the store works. */
export const Health = Schema.Struct({ live: Check, ready: Check }).annotations({ identifier: "Health" })

export const TrafficPoints = Schema.Struct({
  /** Shortest distance between two points, in milliseconds. */
  step: Schema.Number,
  points: Schema.Array(Point)
}).annotations({ identifier: "TrafficPoints" })
