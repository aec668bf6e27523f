/**
 * A managed tunnel as the master's API shows it, its events and versions, and the changes that callers may request.
 */
import * as DateTime from "effect/DateTime"
import type * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/** No instance has this id. */
export class NoInstance extends Schema.TaggedError<NoInstance>()("NoInstance", { id: Schema.String }) {
  override get message(): string {
    return `instance ${this.id}: not found`
  }
}

/** The instance already has this URL. */
export class SameUrl extends Schema.TaggedError<SameUrl>()("SameUrl", { id: Schema.String }) {
  override get message(): string {
    return `url: instance ${this.id} already has this URL`
  }
}

/** The instance has no URL of this version. */
export class NoVersion extends Schema.TaggedError<NoVersion>()("NoVersion", {
  id: Schema.String,
  version: Schema.Number
}) {
  override get message(): string {
    return `version=${this.version}: instance ${this.id} has no such version`
  }
}

/** What was to be changed is not of a version that the caller expects. Nothing was changed. */
export class VersionMismatch extends Schema.TaggedError<VersionMismatch>()("VersionMismatch", {
  what: Schema.String,
  /** The present entity tag, with its quotes. */
  tag: Schema.String
}) {
  override get message(): string {
    return `If-Match: ${this.what} has changed; its version is ${this.tag} now`
  }
}

/** 8 lower-case hex digits. */
export const Id = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{8}$/), Schema.brand("InstanceId")).annotations({
  identifier: "InstanceId",
  description: "8 lower-case hex digits"
})
export type Id = typeof Id.Type

/** The id of the list entry that represents the API key: its `url` is the key. */
export const keyId = "********"

const maxLength = 256
/** The characters that a name may not have, as the class of a regular expression. */
const controls = "\\u0000-\\u001f\\u007f-\\u009f"
/** Bidirectional formatting characters: they reorder what a terminal or a browser shows after them. */
const bidi = "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"

const text = (excluded: string, expected: string) => {
  const invalid = new RegExp(`[${excluded}\\p{Cs}]`, "u")
  return Schema.String.pipe(
    Schema.filter((value) => Array.from(value).length <= maxLength && !invalid.test(value), {
      jsonSchema: { maxLength, pattern: `^[^${excluded}]*$` }
    })
  ).annotations({ message: () => ({ message: `expected a text ${expected}`, override: true }) })
}

const nameRule = `of at most ${maxLength} characters without control characters or bidirectional controls`
/** A name in a request. */
const name = text(controls + bidi, nameRule)
/** A name in the store, where earlier versions allowed bidirectional controls. */
const storedName = text(controls, `of at most ${maxLength} characters without control characters`)

export const Alias = name

export const Peer = Schema.Struct({ sid: storedName, type: storedName, alias: storedName }).annotations({
  identifier: "Peer"
})

/** Changes to a peer; omitted fields stay as they are. */
export const PatchPeer = Schema.partial(Schema.Struct({ sid: name, type: name, alias: name })).annotations({
  identifier: "PatchPeer",
  parseOptions: { onExcessProperty: "error" }
})
export type PatchPeer = typeof PatchPeer.Type

/** What the name of a tag must be. `__proto__` cannot be a key of a JavaScript object. */
export const tagNameRule = `expected a name other than __proto__, ${nameRule}`

const maxTags = 64
/** Tags in a request. A record drops keys that do not fit in silence, unless excess properties are errors. */
export const Tags = Schema.Record({ key: name.pipe(Schema.filter((key) => key !== "__proto__")), value: name }).pipe(
  Schema.filter((tags) => Object.keys(tags).length <= maxTags || `expected at most ${maxTags} tags`, {
    jsonSchema: { maxProperties: maxTags }
  }),
  Schema.annotations({ parseOptions: { onExcessProperty: "error" } })
)

/** Data that dashboards store with an instance. The master does not use it. */
export const Meta = Schema.Struct({
  peer: Peer,
  tags: Schema.Record({ key: storedName, value: storedName })
}).annotations({ identifier: "Meta" })
export type Meta = typeof Meta.Type

export const noMeta: Meta = { peer: { sid: "", type: "", alias: "" }, tags: {} }

/** Bytes received from (`rx`) and sent to (`tx`) the other end of the tunnel, summed over all restarts. */
export const Traffic = Schema.Struct({
  tcprx: Schema.Number,
  tcptx: Schema.Number,
  udprx: Schema.Number,
  udptx: Schema.Number
})
export type Traffic = typeof Traffic.Type

export const noTraffic: Traffic = { tcprx: 0, tcptx: 0, udprx: 0, udptx: 0 }

/**
 * `running`: its ports are open; whether it can serve visitors is another matter, see `serving`. `error`: it could not start,
 * or it failed; the field `error` has the reason.
 */
export const Status = Schema.Literal("running", "stopped", "error")
export type Status = typeof Status.Type

/** The list entry of the API key has an empty type and status. */
export const Instance = Schema.Struct({
  id: Schema.Union(Id, Schema.Literal(keyId)),
  alias: Schema.String,
  type: Schema.Literal("client", "server", ""),
  status: Schema.Union(Status, Schema.Literal("")),
  url: Schema.String.annotations({ description: "as given, completed with the master's log and tls" }),
  config: Schema.String.annotations({ description: "the URL with all defaults written out" }),
  restart: Schema.Boolean.annotations({
    description: "whether it starts with the master, and restarts after a failure"
  }),
  meta: Meta,
  mode: Schema.Number.annotations({
    description: "the mode in use; the mode of the URL while the instance is not running"
  }),
  ping: Schema.Number.annotations({ description: "round-trip time of the control connection, ms" }),
  pool: Schema.Number.annotations({ description: "idle pool connections" }),
  tcps: Schema.Number.annotations({ description: "current TCP visitors" }),
  udps: Schema.Number.annotations({ description: "current UDP visitors" }),
  ...Traffic.fields,
  error: Schema.String.annotations({ description: "the reason if the status is error, otherwise empty" }),
  serving: Schema.Boolean.annotations({
    description:
      "whether visitors can be served now; an instance that is running and not serving waits for its client, a server or a target"
  }),
  reason: Schema.String.annotations({
    description: "why the instance is not serving, or which servers it cannot reach; otherwise empty"
  }),
  refused: Schema.Record({ key: Schema.String, value: Schema.Number }).annotations({
    description: "what could not be served since the instance started, by kind; kinds without any are left out"
  }),
  version: Schema.Number.annotations({
    description:
      "counts the changes of URL, alias, restart and meta, from 1; of the API key, a number that changes with it"
  })
}).annotations({ identifier: "Instance" })
export type Instance = typeof Instance.Type

/** The list entry that represents the API key. */
export const keyEntry = (
  key: Redacted.Redacted,
  { keyHash, mid }: { readonly keyHash: string; readonly mid: string }
): Instance => ({
  id: keyId,
  alias: "",
  type: "",
  status: "",
  url: Redacted.value(key),
  config: mid,
  restart: false,
  meta: noMeta,
  mode: 0,
  ping: 0,
  pool: 0,
  tcps: 0,
  udps: 0,
  ...noTraffic,
  error: "",
  serving: false,
  reason: "",
  refused: {},
  version: keyVersion(keyHash)
})

/** Other for another key. Who has the key learns nothing by it. */
export const keyVersion = (keyHash: string): number => Number.parseInt(keyHash.slice(0, 8), 16) || 1

/**
 * `initial`: an instance that existed when the subscription started. `log`: `logs` is a line of the instance's log.
 * `lagged`: the subscriber read too slowly, `logs` has the number of events lost. `shutdown`: the master stops, and the
 * stream ends.
 */
export const Event = Schema.Struct({
  type: Schema.Literal("initial", "create", "update", "delete", "log", "shutdown", "lagged"),
  /** RFC 3339, UTC. */
  time: Schema.String,
  instance: Schema.NullOr(Instance),
  logs: Schema.String
}).annotations({ identifier: "Event" })
export type Event = typeof Event.Type

/** A present or earlier URL of an instance. */
export const Version = Schema.Struct({
  version: Schema.Number,
  url: Schema.String,
  /** RFC 3339, UTC. */
  time: Schema.String,
  current: Schema.Boolean
}).annotations({ identifier: "Version" })
export type Version = typeof Version.Type

export type Action = "start" | "stop" | "restart" | "reset"

/** Changes to an instance; omitted fields stay as they are. */
export interface Patch {
  readonly alias?: string | undefined
  readonly restart?: boolean | undefined
  readonly meta?: { readonly peer?: PatchPeer | undefined; readonly tags?: Meta["tags"] | undefined } | undefined
  readonly action?: Action | undefined
}

/** Conditions of a change. */
export interface Expected {
  /**
   * Called with the present entity tag, of an instance its version in quotes, when nothing else can change it any more.
   * The change fails with `VersionMismatch` when it returns `false`. Defaults to any version.
   */
  readonly expects?: ((tag: string) => boolean) | undefined
}

/** The result of a patch. */
export interface Patched {
  readonly instance: Instance
  /** Why the action had no effect. */
  readonly note: Option.Option<string>
}

/** RFC 3339 in UTC, from epoch milliseconds. */
export const formatTime = (millis: number): string => DateTime.formatIso(DateTime.unsafeMake(millis))
