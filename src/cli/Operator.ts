/**
 * Performs operations through a master's API, and prints the results.
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as Path from "@effect/platform/Path"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SystemReason from "../core/SystemReason.js"
import type { RegularFile } from "../core/RegularFile.js"
import type { WrittenFile } from "../core/WrittenFile.js"
import type { Event, Instance } from "../master/Instance.js"
import * as MasterClient from "../master/MasterClient.js"
import type { Action, Operation } from "./Operation.js"
import * as Profile from "./Profile.js"
import * as Table from "./Table.js"

/** The operation failed, or its options are invalid. */
export class OperatorError extends Schema.TaggedError<OperatorError>()("OperatorError", {
  /** What is wrong, as one sentence. */
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

export const operate = ({
  action,
  json,
  ...options
}: Operation): Effect.Effect<void, OperatorError, HttpClient.HttpClient | Path.Path | RegularFile | WrittenFile> =>
  Effect.gen(function* () {
    const profile = yield* Profile.load(options)
    if (action._tag === "SaveProfile") return yield* Profile.save(profile)
    const expectedVersion = "ifVersion" in action ? Option.getOrUndefined(action.ifVersion) : undefined
    const client = (expectedVersion?: number) => MasterClient.make({ ...profile, expectedVersion })
    const next = (version: number) => client(expectedVersion === undefined ? undefined : version)
    return yield* perform(action, { client: yield* client(expectedVersion), next, json })
  }).pipe(
    Effect.mapError((error) =>
      error instanceof OperatorError ? error : new OperatorError({ problem: problemOf(error) })
    )
  )

// internal

interface Options {
  readonly client: MasterClient.MasterClient["Type"]
  /** The client for a second change, when the first has made the instance one of this version. */
  readonly next: (version: number) => ReturnType<typeof MasterClient.make>
  readonly json: boolean
}

const perform = (action: Exclude<Action, { readonly _tag: "SaveProfile" }>, { client, json, next }: Options) => {
  const { instances, master } = client
  const print =
    <A>(toText: (value: A) => string) =>
    (value: A) =>
      Console.log(json ? JSON.stringify(value, null, 2) : toText(value))
  const printInstance = print((instance: Instance) => Table.instances([instance]))
  switch (action._tag) {
    case "List":
      return Effect.flatMap(instances.list(), print(Table.instances))
    case "Get":
      return Effect.flatMap(instances.get({ path: { id: action.id } }), print(Table.fields))
    case "Create": {
      const payload = { url: action.url, ...aliasField(action.alias) }
      return Effect.tap(instances.create({ payload }), printInstance).pipe(Effect.flatMap(expectRunning))
    }
    case "Act":
      return Effect.flatMap(
        instances.patch({ path: { id: action.id }, payload: { action: action.action } }),
        (instance) =>
          Effect.zipRight(printInstance(instance), isStart(action.action) ? expectRunning(instance) : Effect.void)
      )
    case "Set":
      return Effect.tap(change(action, { client, next }), printInstance).pipe(Effect.flatMap(expectRunning))
    case "Remove":
      return instances.remove({ path: { id: action.id } })
    case "Logs":
      return action.follow
        ? Stream.runForEach(client.follow(action.id), Console.log)
        : Effect.flatMap(instances.logs({ path: { id: action.id }, urlParams: {} }), (text) =>
            Console.log(text.replace(/\n$/, ""))
          )
    case "Versions":
      return Effect.flatMap(instances.versions({ path: { id: action.id } }), print(Table.versions))
    case "Rollback": {
      const { id, version } = action
      return Effect.tap(instances.rollback({ path: { id }, payload: { version } }), printInstance).pipe(
        Effect.flatMap(expectRunning)
      )
    }
    case "Events":
      return Stream.runForEach(client.events, (event) => Console.log(json ? JSON.stringify(event) : eventLine(event)))
    case "Info":
      return Effect.flatMap(master.info(), print(Table.fields))
    case "Tcping":
      return Effect.flatMap(master.tcping({ urlParams: { target: action.target } }), (result) =>
        Effect.zipRight(
          print(Table.fields)(result),
          result.connected
            ? Effect.void
            : new OperatorError({ problem: `${action.target}: ${result.error ?? "cannot connect"}` })
        )
      )
  }
}

const isStart = (action: string): boolean => action === "start" || action === "restart"

/** Fails when the instance is there and its tunnel could not start. */
const expectRunning = ({ error, id, status }: Instance): Effect.Effect<void, OperatorError> =>
  status === "error" ? Effect.fail(new OperatorError({ problem: `instance ${id}: ${error}` })) : Effect.void

/** Changes alias and restart policy, then the URL. */
const change = (
  { alias, id, restart, url }: Extract<Action, { readonly _tag: "Set" }>,
  { client: { instances }, next }: Omit<Options, "json">
) =>
  Effect.gen(function* () {
    const path = { id }
    const fields = {
      ...aliasField(alias),
      ...Option.match(restart, { onNone: () => ({}), onSome: (restart) => ({ restart }) })
    }
    if (Option.isSome(url)) {
      const payload = { url: url.value }
      if (Object.keys(fields).length === 0) return yield* instances.put({ path, payload })
      const { version } = yield* instances.patch({ path, payload: fields })
      return yield* (yield* next(version)).instances.put({ path, payload })
    }
    if (Object.keys(fields).length > 0) return yield* instances.patch({ path, payload: fields })
    return yield* new OperatorError({ problem: "set: expected --url, --alias or --restart" })
  })

const aliasField = Option.match({ onNone: () => ({}), onSome: (alias: string) => ({ alias }) })

const eventLine = ({ instance, logs, time, type }: Event): string =>
  [time, type, instance?.id ?? "", logs || (instance === null ? "" : described(instance))].join("  ")

const described = (instance: Instance): string =>
  [
    Table.statusOf(instance),
    ...(instance.reason === "" || instance.reason === "stopped" ? [] : [instance.reason])
  ].join("  ")

const problemOf = (error: unknown): string => {
  // The body of the API's error responses.
  if (Predicate.hasProperty(error, "error") && typeof error.error === "string") return error.error
  if (error instanceof HttpClientError.RequestError) {
    return `no response from ${new URL(error.request.url).origin}: ${causeOf(error.cause)}`
  }
  return Predicate.hasProperty(error, "message") ? String(error.message).replaceAll(/\s+/g, " ") : String(error)
}

/** Node wraps the system's error in one whose message is only that the request failed. */
const causeOf = (cause: unknown): string =>
  SystemReason.of(cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause)
