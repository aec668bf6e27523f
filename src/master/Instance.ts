/**
 * A managed tunnel as the master's API shows it: the model, and what happens to it.
 */
import * as Schema from "effect/Schema"

/** 8 lower-case hex digits. */
export const Id = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{8}$/), Schema.brand("InstanceId")).annotations({
  identifier: "InstanceId",
  description: "8 lower-case hex digits"
})
export type Id = typeof Id.Type

/** The entry that stands for the API key: its `url` is the key. */
export const keyId = "********"

/** A text of at most so many characters, none of them a control character. */
const text = (limit: number) =>
  Schema.String.pipe(
    Schema.filter((value) => Array.from(value).length <= limit && !/[\p{Cc}\p{Cs}]/u.test(value), {
      jsonSchema: { maxLength: limit, pattern: "^[^\\u0000-\\u001f\\u007f-\\u009f]*$" }
    })
  ).annotations({
    message: () => ({
      message: `expected a text of at most ${limit} characters, none a control character`,
      override: true
    })
  })

export const Alias = text(256)

const peer = { sid: text(256), type: text(256), alias: text(256) }

export const Peer = Schema.Struct(peer).annotations({ identifier: "Peer" })

/** What is to be changed of it; what is left out stays. */
export const PatchPeer = Schema.partial(Schema.Struct(peer)).annotations({
  identifier: "PatchPeer",
  parseOptions: { onExcessProperty: "error" }
})
export type PatchPeer = typeof PatchPeer.Type

const tagsMost = 64
export const Tags = Schema.Record({ key: text(256), value: text(256) }).pipe(
  Schema.filter((tags) => Object.keys(tags).length <= tagsMost || `expected at most ${tagsMost} tags`, {
    jsonSchema: { maxProperties: tagsMost }
  })
)

/** What dashboards keep with an instance. */
export const Meta = Schema.Struct({ peer: Peer, tags: Tags }).annotations({ identifier: "Meta" })
export type Meta = typeof Meta.Type

export const noMeta: Meta = { peer: { sid: "", type: "", alias: "" }, tags: {} }

/** Bytes, over all restarts: what came from the other end of the tunnel, and what went to it. */
export const Traffic = Schema.Struct({
  tcprx: Schema.Number,
  tcptx: Schema.Number,
  udprx: Schema.Number,
  udptx: Schema.Number
})
export type Traffic = typeof Traffic.Type

export const noTraffic: Traffic = { tcprx: 0, tcptx: 0, udprx: 0, udptx: 0 }

/** `running`: its ports are open. `error`: it could not begin or broke; see `error`. */
export const Status = Schema.Literal("running", "stopped", "error")
export type Status = typeof Status.Type

/** The entry of the API key has the empty type and status. */
export const Instance = Schema.Struct({
  id: Schema.Union(Id, Schema.Literal(keyId)),
  alias: Schema.String,
  type: Schema.Literal("client", "server", ""),
  status: Schema.Union(Status, Schema.Literal("")),
  url: Schema.String.annotations({ description: "as given, completed with the master's log and tls" }),
  config: Schema.String.annotations({ description: "the URL with every default spelled out" }),
  restart: Schema.Boolean.annotations({ description: "whether it starts with the master, and again after it broke" }),
  meta: Meta,
  mode: Schema.Number.annotations({ description: "the mode in force; the URL's while it does not run" }),
  ping: Schema.Number.annotations({ description: "round trip of the control connection, ms" }),
  pool: Schema.Number.annotations({ description: "pool connections ready" }),
  tcps: Schema.Number.annotations({ description: "TCP visitors now" }),
  udps: Schema.Number.annotations({ description: "UDP visitors now" }),
  ...Traffic.fields,
  error: Schema.String.annotations({ description: "why the status is error, else empty" }),
  version: Schema.Number.annotations({ description: "of its URL; the first is 1" })
}).annotations({ identifier: "Instance" })
export type Instance = typeof Instance.Type

/**
 * `initial`: it was there when the subscriber came. `log`: a line of its log, in `logs`. `lagged`: the subscriber was too
 * slow, `logs` says how many events it lost. `shutdown`: the master ends, and with it the stream.
 */
export const Event = Schema.Struct({
  type: Schema.Literal("initial", "create", "update", "delete", "log", "shutdown", "lagged"),
  /** RFC 3339, UTC. */
  time: Schema.String,
  instance: Schema.NullOr(Instance),
  logs: Schema.String
}).annotations({ identifier: "Event" })
export type Event = typeof Event.Type

/** A URL that the instance had, or has. */
export const Version = Schema.Struct({
  version: Schema.Number,
  url: Schema.String,
  /** RFC 3339, UTC. */
  time: Schema.String,
  current: Schema.Boolean
}).annotations({ identifier: "Version" })
export type Version = typeof Version.Type
