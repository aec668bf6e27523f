/**
 * The errors of the master's API: a class for each status, and which errors of the master they stand for.
 */
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { UrlError } from "../url/UrlError.js"
import { Health } from "./ApiPayloads.js"
import type { NoInstance, NoVersion, SameUrl } from "./Instance.js"
import type { StoreError } from "./InstanceStore.js"

interface Fields {
  /** One sentence. */
  readonly error: string
}

/** The request is invalid; the sentence names the field. */
export class BadRequest extends Data.TaggedError("BadRequest")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The API key is missing or wrong. */
export class Unauthorized extends Data.TaggedError("Unauthorized")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The list entry of the API key does not support the operation. */
export class Forbidden extends Data.TaggedError("Forbidden")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The instance or the version does not exist. */
export class NotFound extends Data.TaggedError("NotFound")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The instance already has this URL. */
export class Conflict extends Data.TaggedError("Conflict")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** `If-Match` does not match the version. The change was not made. */
export class PreconditionFailed extends Data.TaggedError("PreconditionFailed")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** Too many wrong API keys came from the caller's address. */
export class TooMany extends Data.TaggedError("TooMany")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The store failed. The master did not make the change. */
export class Unavailable extends Data.TaggedError("Unavailable")<Fields> {
  override get message(): string {
    return this.error
  }
}

/** The master is not ready; the response has the same body as a successful health check. */
export class NotReady extends Data.TaggedError("NotReady")<typeof Health.Type> {}

const Failure = Schema.Struct({ error: Schema.String.annotations({ description: "one sentence" }) }).annotations({
  identifier: "Failure"
})

/** `{"error": "…"}` with the status; clients decode it to the class again. */
const schema = <A extends Fields>(make: new (fields: Fields) => A, status: number, description: string) =>
  Schema.transform(Failure, Schema.instanceOf(make), {
    strict: true,
    decode: ({ error }) => new make({ error }),
    encode: ({ error }) => ({ error })
  }).annotations(HttpApiSchema.annotations({ status, description }))

/** The errors as endpoints declare them. */
export const schemas = {
  BadRequest: schema(BadRequest, 400, "The request is invalid; the sentence names the field."),
  Unauthorized: schema(Unauthorized, 401, "The API key is missing or wrong."),
  Forbidden: schema(Forbidden, 403, "The list entry of the API key does not support this operation."),
  NotFound: schema(NotFound, 404, "The instance or the version does not exist."),
  Conflict: schema(Conflict, 409, "The instance already has this URL."),
  PreconditionFailed: schema(
    PreconditionFailed,
    412,
    "If-Match does not match the version; ETag has the present one. The change was not made."
  ),
  TooMany: schema(
    TooMany,
    429,
    "Too many wrong API keys came from this address; Retry-After has the seconds until it may try another one. The right key is always accepted."
  ),
  Unavailable: schema(Unavailable, 503, "The store failed. The change was not made."),
  NotReady: Schema.transform(Health, Schema.instanceOf(NotReady), {
    strict: true,
    decode: (health) => new NotReady(health),
    encode: ({ live, ready }) => ({ live, ready })
  }).annotations(HttpApiSchema.annotations({ status: 503 }))
}

/** The errors of the master as errors of the API, by tag, for `Effect.catchTags`. */
export const notFound = ({ message }: NoInstance | NoVersion) => Effect.fail(new NotFound({ error: message }))
export const badUrl = ({ message }: UrlError) => Effect.fail(new BadRequest({ error: message }))
export const sameUrl = ({ message }: SameUrl) => Effect.fail(new Conflict({ error: message }))
export const notStored = ({ message }: StoreError) => Effect.fail(new Unavailable({ error: message }))
