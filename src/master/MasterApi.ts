/**
 * The master's HTTP API, as schemas: what validates, documents and types it.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { Figures } from "./HostFigures.js"
import { Alias, Instance, PatchPeer, Tags, Version } from "./Instance.js"
import { Point } from "./TrafficHistory.js"

interface Failing {
  /** One sentence. */
  readonly error: string
}

/** What was sent cannot be meant; the sentence names the field. */
export class BadRequest extends Data.TaggedError("BadRequest")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** The API key is missing or wrong. */
export class Unauthorized extends Data.TaggedError("Unauthorized")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** The entry of the API key has no such thing. */
export class Forbidden extends Data.TaggedError("Forbidden")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** There is no such instance, or version. */
export class NotFound extends Data.TaggedError("NotFound")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** It is so already. */
export class Conflict extends Data.TaggedError("Conflict")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** Too many wrong keys came from the caller's address. */
export class TooMany extends Data.TaggedError("TooMany")<Failing> {
  override get message(): string {
    return this.error
  }
}
/** The master could not keep the change, and did not make it. */
export class Unavailable extends Data.TaggedError("Unavailable")<Failing> {
  override get message(): string {
    return this.error
  }
}

const Failure = Schema.Struct({ error: Schema.String.annotations({ description: "one sentence" }) }).annotations({
  identifier: "Failure"
})

/** `{"error": "…"}` with a status of its own, and the class again on the client's side. */
const failing = <A extends Failing>(make: new (fields: Failing) => A, status: number, description: string) =>
  Schema.transform(Failure, Schema.instanceOf(make), {
    strict: true,
    decode: ({ error }) => new make({ error }),
    encode: ({ error }) => ({ error })
  }).annotations(HttpApiSchema.annotations({ status, description }))

const failures = {
  BadRequest: failing(BadRequest, 400, "What was sent cannot be meant; the sentence names the field."),
  Unauthorized: failing(Unauthorized, 401, "The API key is missing or wrong."),
  Forbidden: failing(Forbidden, 403, "The entry of the API key has no such thing."),
  NotFound: failing(NotFound, 404, "There is no such instance, or version."),
  Conflict: failing(Conflict, 409, "It is so already."),
  TooMany: failing(TooMany, 429, "Too many wrong keys came from this address."),
  Unavailable: failing(Unavailable, 503, "The master could not keep the change, and did not make it.")
}

/** Who calls, by the key that was shown. */
export class Caller extends Context.Tag("nodepass/MasterApi/Caller")<Caller, { readonly key: Redacted.Redacted }>() {}

/** Asks for the API key in the header `X-API-Key`; where a stream is asked for, a ticket in the query does as well. */
export class KeyCheck extends HttpApiMiddleware.Tag<KeyCheck>()("nodepass/MasterApi/KeyCheck", {
  failure: Schema.Union(failures.Unauthorized, failures.TooMany),
  provides: Caller,
  security: { apiKey: HttpApiSecurity.apiKey({ in: "header", key: "x-api-key" }) }
}) {}

/** A field's own sentence, in place of one for each thing that was tried. */
const saying = (message: string) => ({ message: () => ({ message, override: true }) })

const strict = <Fields extends Schema.Struct.Fields>(identifier: string, fields: Fields) =>
  Schema.Struct(fields).annotations({ identifier, parseOptions: { onExcessProperty: "error" } })

const Url = Schema.String.pipe(Schema.maxLength(8192)).annotations(saying("expected the text of a URL"))
const Flag = Schema.Boolean.annotations(saying("expected true or false"))
const whole = (from: number, expected: string) =>
  Schema.NumberFromString.pipe(Schema.int(), Schema.between(from, Number.MAX_SAFE_INTEGER)).annotations({
    ...saying(expected),
    jsonSchema: { type: "integer", minimum: from, maximum: Number.MAX_SAFE_INTEGER }
  })
const Follow = Schema.transformLiterals(["0", false], ["1", true], ["false", false], ["true", true]).annotations(
  saying("expected true or false")
)

export const CreateInstance = strict("CreateInstance", { url: Url, alias: Schema.optional(Alias) })
export const PatchInstance = strict("PatchInstance", {
  alias: Schema.optional(Alias),
  restart: Schema.optional(Flag),
  action: Schema.optional(
    Schema.Literal("start", "stop", "restart", "reset").annotations(
      saying("expected one of start, stop, restart, reset")
    )
  ),
  meta: Schema.optional(strict("PatchMeta", { peer: Schema.optional(PatchPeer), tags: Schema.optional(Tags) }))
})
export const PutInstance = strict("PutInstance", { url: Url })
export const Rollback = strict("Rollback", {
  version: Schema.Int.pipe(Schema.between(1, 2_147_483_647)).annotations(saying("expected a whole number from 1"))
})
export const Rename = strict("Rename", { alias: Alias })

export const MasterInfo = Schema.Struct({
  mid: Schema.String.annotations({ description: "16 hex digits, the same for all the master's life" }),
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

export const Reached = Schema.Struct({
  target: Schema.String,
  connected: Schema.Boolean,
  latency: Schema.Number.annotations({ description: "milliseconds" }),
  error: Schema.NullOr(Schema.String)
}).annotations({ identifier: "Reached" })

export const Ticket = Schema.Struct({
  ticket: Schema.String,
  /** Epoch milliseconds. */
  expires: Schema.Number
}).annotations({ identifier: "Ticket" })
export type Ticket = typeof Ticket.Type

const Finding = Schema.Struct({ ok: Schema.Boolean, reasons: Schema.Array(Schema.String) })
/** `live`: it works at all. `ready`: it does all that it is to do. */
export const Health = Schema.Struct({ live: Finding, ready: Finding }).annotations({ identifier: "Health" })
/** The same, while it is not ready. */
export class NotReady extends Data.TaggedError("NotReady")<typeof Health.Type> {}
const notReady = Schema.transform(Health, Schema.instanceOf(NotReady), {
  strict: true,
  decode: (health) => new NotReady(health),
  encode: ({ live, ready }) => ({ live, ready })
}).annotations(HttpApiSchema.annotations({ status: 503 }))

const Traffic = Schema.Struct({
  /** Milliseconds between two points at least. */
  step: Schema.Number,
  points: Schema.Array(Point)
}).annotations({ identifier: "TrafficPoints" })

const id = HttpApiSchema.param("id", Schema.String)
const withTicket = {
  ticket: Schema.optional(Schema.String.annotations({ description: "in place of the key: see POST /events/ticket" }))
}
const eventStream = HttpApiSchema.Text({ contentType: "text/event-stream" })
const plainText = HttpApiSchema.Text({ contentType: "text/plain; charset=utf-8" })

const Instances = HttpApiGroup.make("instances")
  .add(
    HttpApiEndpoint.get("list", "/instances")
      .addSuccess(Schema.Array(Instance))
      .annotate(OpenApi.Description, "Every instance, and the entry of the API key.")
  )
  .add(
    HttpApiEndpoint.post("create", "/instances")
      .setPayload(CreateInstance)
      .addSuccess(Instance, { status: 201 })
      .addError(failures.BadRequest)
      .addError(failures.Conflict)
      .annotate(OpenApi.Description, "Makes an instance, keeps it and starts it.")
  )
  .add(HttpApiEndpoint.get("get")`/instances/${id}`.addSuccess(Instance).addError(failures.NotFound))
  .add(
    HttpApiEndpoint.patch("patch")`/instances/${id}`
      .setPayload(PatchInstance)
      .addSuccess(Instance)
      .addError(failures.BadRequest)
      .addError(failures.NotFound)
      .annotate(
        OpenApi.Description,
        "Changes what is given. reset zeroes the traffic. An action that has nothing to do says so in the header X-NodePass-Note. For the entry of the API key only restart is allowed: it makes a new key."
      )
  )
  .add(
    HttpApiEndpoint.put("put")`/instances/${id}`
      .setPayload(PutInstance)
      .addSuccess(Instance)
      .addError(failures.BadRequest)
      .addError(failures.Forbidden)
      .addError(failures.NotFound)
      .addError(failures.Conflict)
      .annotate(OpenApi.Description, "Gives it another URL and restarts it.")
  )
  .add(
    HttpApiEndpoint.del("remove")`/instances/${id}`
      .addSuccess(HttpApiSchema.NoContent)
      .addError(failures.Forbidden)
      .addError(failures.NotFound)
  )
  .add(
    HttpApiEndpoint.get("versions")`/instances/${id}/versions`
      .addSuccess(Schema.Array(Version))
      .addError(failures.NotFound)
      .annotate(OpenApi.Description, "Every URL it had, the newest first.")
  )
  .add(
    HttpApiEndpoint.post("rollback")`/instances/${id}/rollback`
      .setPayload(Rollback)
      .addSuccess(Instance)
      .addError(failures.BadRequest)
      .addError(failures.Forbidden)
      .addError(failures.NotFound)
      .addError(failures.Conflict)
      .annotate(OpenApi.Description, "Gives it the URL of that version again, as a new version, and restarts it.")
  )
  .add(
    HttpApiEndpoint.get("logs")`/instances/${id}/logs`
      .setUrlParams(
        Schema.Struct({
          follow: Schema.optional(Follow),
          lines: Schema.optional(whole(0, "expected a whole number from 0")),
          ...withTicket
        })
      )
      .addSuccess(plainText)
      .addError(failures.BadRequest)
      .addError(failures.NotFound)
      .annotate(OpenApi.Description, "The last lines of its log, up to 1000; follow=true goes on with those to come.")
  )
  .add(
    HttpApiEndpoint.get("traffic")`/instances/${id}/traffic`
      .setUrlParams(
        Schema.Struct({
          since: Schema.optional(whole(0, "expected epoch milliseconds")),
          step: Schema.optional(whole(1, "expected milliseconds from 1"))
        })
      )
      .addSuccess(Traffic)
      .addError(failures.BadRequest)
      .addError(failures.NotFound)
      .annotate(
        OpenApi.Description,
        "Its traffic over time: each report interval for the last 15 minutes, each minute for 6 hours. since in epoch milliseconds, step in milliseconds."
      )
  )

const Events = HttpApiGroup.make("events")
  .add(
    HttpApiEndpoint.get("subscribe", "/events")
      .setUrlParams(Schema.Struct(withTicket))
      .addSuccess(eventStream)
      .annotate(
        OpenApi.Description,
        "Server-sent events: `event: instance`, the data an Event. The header Last-Event-ID goes on where a stream broke off."
      )
  )
  .add(
    HttpApiEndpoint.post("ticket", "/events/ticket")
      .addSuccess(Ticket, { status: 201 })
      .annotate(OpenApi.Description, "A word that opens one stream within a minute, as ?ticket=, in place of the key.")
  )

const System = HttpApiGroup.make("master")
  .add(HttpApiEndpoint.get("info", "/info").addSuccess(MasterInfo))
  .add(HttpApiEndpoint.post("rename", "/info").setPayload(Rename).addSuccess(MasterInfo).addError(failures.BadRequest))
  .add(
    HttpApiEndpoint.get("tcping", "/tcping")
      .setUrlParams(Schema.Struct({ target: Schema.String.annotations(saying("expected host:port")) }))
      .addSuccess(Reached)
      .addError(failures.BadRequest)
      .annotate(OpenApi.Description, "Whether the master can connect to host:port; at most 10 at once.")
  )

const Open = HttpApiGroup.make("open")
  .add(
    HttpApiEndpoint.get("health", "/health")
      .addSuccess(Health)
      .addError(notReady)
      .annotate(OpenApi.Description, "Also at the root of the server.")
  )
  .add(
    HttpApiEndpoint.get("metrics", "/metrics")
      .addSuccess(HttpApiSchema.Text({ contentType: "text/plain; version=0.0.4; charset=utf-8" }))
      .addError(failures.Unauthorized)
      .addError(failures.TooMany)
      .annotate(
        OpenApi.Description,
        "For Prometheus; asks for the key unless the master's URL has metrics=open. Also at the root of the server."
      )
  )
  .add(HttpApiEndpoint.get("openapi", "/openapi.json").addSuccess(Schema.Unknown))
  .add(HttpApiEndpoint.get("docs", "/docs").addSuccess(HttpApiSchema.Text({ contentType: "text/html" })))

/** Every endpoint, below the base path: see `at`. */
export class MasterApi extends HttpApi.make("nodepass")
  .add(Instances.middleware(KeyCheck))
  .add(Events.middleware(KeyCheck))
  .add(System.middleware(KeyCheck))
  .add(Open)
  .addError(failures.Unavailable)
  .annotate(OpenApi.Title, "nodepass master")
  .annotate(OpenApi.Version, "1")
  .annotate(OpenApi.Transform, (document) => readable(document)) {}

/** With its paths below `{prefix}/v1`. */
export const at = (prefix: string) => MasterApi.prefix(`/${prefix.replace(/^\/+|\/+$/g, "")}/v1`)

// internal

const Decoded = Schema.Struct({ $ref: Schema.Literal("#/components/schemas/HttpApiDecodeError") })
const isDecoded = Schema.is(Decoded)

/** What cannot be decoded is answered as every other error is. */
const readable = (document: Record<string, unknown>): Record<string, unknown> => {
  const walk = (value: unknown): unknown => {
    if (isDecoded(value)) return { $ref: "#/components/schemas/Failure" }
    if (Array.isArray(value)) return unique(value.map(walk))
    if (!Predicate.isRecord(value)) return value
    const entries = Object.entries(value).flatMap(([name, part]) =>
      gone.includes(name) && Predicate.isRecord(part) && !("$ref" in part) ? [] : [[name, walk(part)] as const]
    )
    const walked = Object.fromEntries(entries)
    const { allOf, anyOf } = walked
    // Of one there is no choice; and of a failure the answer's own description says what it is for.
    return only(anyOf) ?? only(allOf) ?? walked
  }
  const walked = walk(document)
  return Predicate.isRecord(walked) ? walked : document
}

const only = (values: unknown): Record<string, unknown> | undefined =>
  Array.isArray(values) && values.length === 1 && Predicate.isRecord(values[0]) ? values[0] : undefined

const unique = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const texts = new Set<string>()
  return values.filter((value) => {
    const text = JSON.stringify(value)
    if (texts.has(text)) return false
    texts.add(text)
    return true
  })
}

const gone = ["HttpApiDecodeError", "Issue", "PropertyKey"]
