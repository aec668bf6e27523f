/**
 * The endpoints of the master's HTTP API as schemas: they validate requests, document the API and type its clients.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Context from "effect/Context"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { schemas as errors } from "./ApiErrors.js"
import * as ApiPayloads from "./ApiPayloads.js"
import { Instance, Version } from "./Instance.js"
import * as OpenApiDocument from "./OpenApiDocument.js"

/** The authenticated caller. */
export class Caller extends Context.Tag("nodepass/MasterApi/Caller")<Caller, { readonly key: Redacted.Redacted }>() {}

/** Requires the API key in the header `X-API-Key`. Endpoints that stream accept a ticket in the query instead. */
export class KeyCheck extends HttpApiMiddleware.Tag<KeyCheck>()("nodepass/MasterApi/KeyCheck", {
  failure: Schema.Union(errors.Unauthorized, errors.TooMany),
  provides: Caller,
  security: { apiKey: HttpApiSecurity.apiKey({ in: "header", key: "x-api-key" }) }
}) {}

const id = HttpApiSchema.param("id", Schema.String)

const InstanceGroup = HttpApiGroup.make("instances")
  .add(
    HttpApiEndpoint.get("list", "/instances")
      .addSuccess(Schema.Array(Instance))
      .annotate(OpenApi.Description, "Lists all instances, and the entry of the API key.")
  )
  .add(
    HttpApiEndpoint.post("create", "/instances")
      .setPayload(ApiPayloads.CreateInstance)
      .addSuccess(Instance, { status: 201 })
      .addError(errors.BadRequest)
      .addError(errors.Conflict)
      .annotate(OpenApi.Description, "Creates an instance, stores it and starts it.")
  )
  .add(
    HttpApiEndpoint.get("get")`/instances/${id}`
      .addSuccess(Instance)
      .addError(errors.NotFound)
      .annotate(OpenApi.Description, "Returns one instance.")
  )
  .add(
    HttpApiEndpoint.patch("patch")`/instances/${id}`
      .setPayload(ApiPayloads.PatchInstance)
      .addSuccess(Instance)
      .addError(errors.BadRequest)
      .addError(errors.PreconditionFailed)
      .addError(errors.NotFound)
      .annotate(
        OpenApi.Description,
        "Changes the given fields. The action reset sets the traffic to zero. If an action has no effect, the header X-NodePass-Note has the reason. The entry of the API key accepts only the action restart, which creates a new key."
      )
  )
  .add(
    HttpApiEndpoint.put("put")`/instances/${id}`
      .setPayload(ApiPayloads.PutInstance)
      .addSuccess(Instance)
      .addError(errors.BadRequest)
      .addError(errors.Forbidden)
      .addError(errors.PreconditionFailed)
      .addError(errors.NotFound)
      .addError(errors.Conflict)
      .annotate(OpenApi.Description, "Sets the URL of the instance, as a new version, and restarts the instance.")
  )
  .add(
    HttpApiEndpoint.del("remove")`/instances/${id}`
      .addSuccess(HttpApiSchema.NoContent)
      .addError(errors.BadRequest)
      .addError(errors.Forbidden)
      .addError(errors.PreconditionFailed)
      .addError(errors.NotFound)
      .annotate(OpenApi.Description, "Stops the instance and deletes it, with its versions.")
  )
  .add(
    HttpApiEndpoint.get("versions")`/instances/${id}/versions`
      .addSuccess(Schema.Array(Version))
      .addError(errors.NotFound)
      .annotate(OpenApi.Description, "Lists the present and earlier URLs of the instance, newest first.")
  )
  .add(
    HttpApiEndpoint.post("rollback")`/instances/${id}/rollback`
      .setPayload(ApiPayloads.Rollback)
      .addSuccess(Instance)
      .addError(errors.BadRequest)
      .addError(errors.Forbidden)
      .addError(errors.PreconditionFailed)
      .addError(errors.NotFound)
      .addError(errors.Conflict)
      .annotate(
        OpenApi.Description,
        "Sets the URL of an earlier version again, as a new version, and restarts the instance."
      )
  )
  .add(
    HttpApiEndpoint.get("logs")`/instances/${id}/logs`
      .setUrlParams(ApiPayloads.LogsQuery)
      .addSuccess(HttpApiSchema.Text({ contentType: "text/plain; charset=utf-8" }))
      .addError(errors.BadRequest)
      .addError(errors.NotFound)
      .annotate(
        OpenApi.Description,
        "Returns the last lines of the instance's log, up to 1000. With follow=true the response stays open and new lines follow."
      )
  )
  .add(
    HttpApiEndpoint.get("traffic")`/instances/${id}/traffic`
      .setUrlParams(ApiPayloads.TrafficQuery)
      .addSuccess(ApiPayloads.TrafficPoints)
      .addError(errors.BadRequest)
      .addError(errors.NotFound)
      .annotate(
        OpenApi.Description,
        "Returns the traffic over time: one point per report interval for the last 15 minutes, one per minute for 6 hours. since is in epoch milliseconds, step in milliseconds."
      )
  )

const EventGroup = HttpApiGroup.make("events")
  .add(
    HttpApiEndpoint.get("subscribe", "/events")
      .setUrlParams(ApiPayloads.TicketQuery)
      .addSuccess(HttpApiSchema.Text({ contentType: "text/event-stream" }))
      .annotate(
        OpenApi.Description,
        "Streams server-sent events: `event: instance` with an Event as data. With the header Last-Event-ID the stream continues after that event."
      )
  )
  .add(
    HttpApiEndpoint.post("ticket", "/events/ticket")
      .addSuccess(ApiPayloads.Ticket, { status: 201 })
      .annotate(
        OpenApi.Description,
        "Creates a single-use token that opens one stream within a minute: `?ticket=` replaces the API key."
      )
  )

const SystemGroup = HttpApiGroup.make("master")
  .add(
    HttpApiEndpoint.get("info", "/info")
      .addSuccess(ApiPayloads.MasterInfo)
      .annotate(OpenApi.Description, "Returns facts about the master and its machine.")
  )
  .add(
    HttpApiEndpoint.post("rename", "/info")
      .setPayload(ApiPayloads.Rename)
      .addSuccess(ApiPayloads.MasterInfo)
      .addError(errors.PreconditionFailed)
      .addError(errors.BadRequest)
      .annotate(OpenApi.Description, "Sets the alias of the master.")
  )
  .add(
    HttpApiEndpoint.get("tcping", "/tcping")
      .setUrlParams(ApiPayloads.TcpingQuery)
      .addSuccess(ApiPayloads.TcpingResult)
      .addError(errors.BadRequest)
      .annotate(OpenApi.Description, "Tests whether the master can connect to host:port; at most 10 tests at a time.")
  )

const OpenGroup = HttpApiGroup.make("open")
  .add(
    HttpApiEndpoint.get("health", "/health")
      .addSuccess(ApiPayloads.Health)
      .addError(errors.NotReady)
      .annotate(
        OpenApi.Description,
        "Returns whether the master is live and ready, with the reasons; needs no API key. Also served at /health."
      )
  )
  .add(
    HttpApiEndpoint.get("metrics", "/metrics")
      .addSuccess(HttpApiSchema.Text({ contentType: "text/plain; version=0.0.4; charset=utf-8" }))
      .addError(errors.Unauthorized)
      .addError(errors.TooMany)
      .annotate(
        OpenApi.Description,
        "Returns metrics for Prometheus. Requires the API key unless the master's URL has metrics=open. Also served at /metrics."
      )
  )
  .add(
    HttpApiEndpoint.get("openapi", "/openapi.json")
      .addSuccess(Schema.Unknown)
      .annotate(OpenApi.Description, "Returns this document; needs no API key.")
  )
  .add(
    HttpApiEndpoint.get("docs", "/docs")
      .addSuccess(HttpApiSchema.Text({ contentType: "text/html" }))
      .annotate(OpenApi.Description, "A page that shows and calls the API; needs no API key.")
  )

/** All endpoints, relative to the base path: see `withPrefix`. */
export class MasterApi extends HttpApi.make("nodepass")
  .add(InstanceGroup.middleware(KeyCheck))
  .add(EventGroup.middleware(KeyCheck))
  .add(SystemGroup.middleware(KeyCheck))
  .add(OpenGroup)
  .addError(errors.Unavailable)
  .annotate(OpenApi.Title, "nodepass master")
  .annotate(OpenApi.Version, "1")
  .annotate(OpenApi.Transform, OpenApiDocument.transform) {}

/** The API with the base path `{prefix}/v1`. */
export const withPrefix = (prefix: string) => MasterApi.prefix(`/${prefix.replace(/^\/+|\/+$/g, "")}/v1`)
