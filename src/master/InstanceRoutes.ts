/**
 * The endpoints below `/instances`.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { BadRequest, badUrl, Forbidden, notFound, notStored, sameUrl } from "./ApiErrors.js"
import { ApiKey } from "./ApiKey.js"
import * as IfMatch from "./IfMatch.js"
import { type Instance, keyEntry, keyId } from "./Instance.js"
import type * as Journal from "./Journal.js"
import { Master } from "./Master.js"
import { Caller, type withPrefix } from "./MasterApi.js"
import * as RequestMiddleware from "./RequestMiddleware.js"

export const layer = (api: ReturnType<typeof withPrefix>) =>
  HttpApiBuilder.group(api, "instances", (handlers) =>
    Effect.gen(function* () {
      const master = yield* Master
      const apiKey = yield* ApiKey
      const callersKey = Effect.gen(function* () {
        const { key } = yield* Caller
        return keyEntry(key, yield* master.identity)
      })
      const newKey = (expects: IfMatch.Condition) =>
        Effect.gen(function* () {
          const key = yield* Effect.catchTags(apiKey.renew({ expects }), {
            StoreError: notStored,
            VersionMismatch: IfMatch.notMet
          })
          return keyEntry(key, yield* master.identity)
        })

      return handlers
        .handle("list", () => Effect.zipWith(master.list, callersKey, (list, key) => [...list, key]))
        .handle(
          "create",
          ({ payload }) =>
            master
              .create(payload)
              .pipe(Effect.catchTags({ UrlError: badUrl, StoreError: notStored }), Effect.tap(setTag)),
          { uninterruptible: true }
        )
        .handle("get", ({ path: { id } }) =>
          Effect.tap(id === keyId ? callersKey : Effect.catchAll(master.get(id), notFound), setTag)
        )
        .handle(
          "patch",
          ({ path: { id }, payload, request }) =>
            Effect.gen(function* () {
              const expects = yield* IfMatch.conditionOf(request)
              if (id === keyId) {
                const isRestart = Object.keys(payload).join() === "action" && payload.action === "restart"
                if (!isRestart) {
                  return yield* new BadRequest({ error: "action: expected restart and no other field for the API key" })
                }
                return yield* Effect.tap(newKey(expects), setTag)
              }
              const patched = master.patch(id, payload, { expects })
              const { instance, note } = yield* Effect.catchTags(patched, {
                NoInstance: notFound,
                StoreError: notStored,
                VersionMismatch: IfMatch.notMet
              })
              yield* setTag(instance)
              if (Option.isSome(note)) yield* RequestMiddleware.setHeader("x-nodepass-note", note.value)
              return instance
            }),
          { uninterruptible: true }
        )
        .handle(
          "put",
          ({ path: { id }, payload: { url }, request }) =>
            Effect.flatMap(IfMatch.conditionOf(request), (expects) => master.replace(id, url, { expects })).pipe(
              Effect.catchTags({
                NoInstance: notFound,
                StoreError: notStored,
                UrlError: badUrl,
                SameUrl: sameUrl,
                VersionMismatch: IfMatch.notMet
              }),
              Effect.tap(setTag),
              unlessKey(id, "given a URL")
            ),
          { uninterruptible: true }
        )
        .handle(
          "remove",
          ({ path: { id }, request }) =>
            Effect.flatMap(IfMatch.conditionOf(request), (expects) => master.remove(id, { expects })).pipe(
              Effect.catchTags({ NoInstance: notFound, StoreError: notStored, VersionMismatch: IfMatch.notMet }),
              unlessKey(id, "deleted")
            ),
          { uninterruptible: true }
        )
        .handle("versions", ({ path: { id } }) =>
          master.versions(id).pipe(Effect.catchTags({ NoInstance: notFound, StoreError: notStored }))
        )
        .handle(
          "rollback",
          ({ path: { id }, payload: { version }, request }) =>
            Effect.flatMap(IfMatch.conditionOf(request), (expects) => master.rollback(id, version, { expects })).pipe(
              Effect.catchTags({
                NoInstance: notFound,
                NoVersion: notFound,
                StoreError: notStored,
                UrlError: badUrl,
                SameUrl: sameUrl,
                VersionMismatch: IfMatch.notMet
              }),
              Effect.tap(setTag),
              unlessKey(id, "rolled back")
            ),
          { uninterruptible: true }
        )
        .handleRaw("logs", ({ path: { id }, urlParams: { follow = false, lines = 1000 } }) =>
          Effect.gen(function* () {
            const journal = yield* Effect.catchAll(master.logs(id), notFound)
            const next = yield* journal.next
            const last = Stream.make(yield* journal.last(lines))
            if (!follow) return textResponse(last)
            return textResponse(Stream.interruptWhen(Stream.concat(last, linesFrom(journal, next)), apiKey.renewed))
          })
        )
        .handle("traffic", ({ path: { id }, urlParams: { since = 0, step = 1 } }) =>
          Effect.map(Effect.catchAll(master.traffic(id), notFound), (history) => ({
            step,
            points: history.read(since, step)
          }))
        )
    })
  )

// internal

const setTag = ({ version }: Instance) => IfMatch.setTag(IfMatch.tagOf(version))

/** Fails instead when the id is that of the API key. */
const unlessKey =
  (id: string, what: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Forbidden, R> =>
    id === keyId ? Effect.fail(new Forbidden({ error: `id=${keyId}: the API key cannot be ${what}` })) : self

const textResponse = (lines: Stream.Stream<ReadonlyArray<string>>): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.stream(
    Stream.map(lines, (lines) => utf8.encode(lines.map((line) => `${line}\n`).join(""))),
    {
      contentType: "text/plain; charset=utf-8",
      headers: { "cache-control": "no-cache", "x-accel-buffering": "no" }
    }
  )

const utf8 = new TextEncoder()

const linesFrom = (journal: Journal.Journal<string>, from: number): Stream.Stream<ReadonlyArray<string>> =>
  Stream.unfoldEffect(from, (from) =>
    Effect.map(
      journal.read(from, linesPerRead),
      Option.map(({ entries, first, lost }) => {
        const note = lost > 0 ? [`… ${lost} lines lost: read too slowly`] : []
        return [[...note, ...entries], first + entries.length] as const
      })
    )
  )

const linesPerRead = 200
