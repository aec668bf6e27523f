/**
 * The API key of a master on standard output: its first key, and the command `nodepass key --state`.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as ApiKey from "../../master/ApiKey.js"
import { type InstanceStore, StoreError } from "../../master/InstanceStore.js"
import type { Crypto } from "../../transport/Crypto.js"
import * as NodeState from "../store/NodeState.js"
import * as StandardOutput from "./StandardOutput.js"

/** Prints the first key of the master whose store it is, unless it has a key already. */
export const create = (
  place: NodeState.Place
): Effect.Effect<void, ApiKey.KeyNotShown | StoreError, Crypto | InstanceStore> =>
  Effect.flatMap(NodeState.describe(place), (name) =>
    ApiKey.create((key) =>
      deliver(`API key: ${Redacted.value(key)}  (shown only now; nodepass key --state ${name} makes another one)`)
    )
  )

/** The command `nodepass key --state`: prints a new key, alone in its line. Works while a master uses the state. */
export const replace = (place: NodeState.Place): Effect.Effect<void, ApiKey.KeyNotShown | StoreError, Crypto> =>
  Effect.gen(function* () {
    const name = yield* NodeState.describe(place)
    let isShown = false
    const show: ApiKey.Show = (key) =>
      Effect.tap(deliver(Redacted.value(key)), () => {
        isShown = true
      })
    yield* Effect.mapError(ApiKey.replace(show), (error) =>
      isShown && error._tag === "StoreError"
        ? new StoreError({
            reason: error.reason,
            place: error.place,
            detail: `${error.detail}; the key that was printed is not valid`
          })
        : error
    )
    yield* Effect.logInfo(
      `replaced the API key in ${name}: a running master accepts it within a few seconds, and the previous one no longer`
    )
  }).pipe(Effect.provide(NodeState.layer(place, { purpose: "shared" })))

// internal

const deliver = (line: string): Effect.Effect<void, ApiKey.KeyNotShown> =>
  Effect.mapError(StandardOutput.deliver(`${line}\n`), ({ message }) => new ApiKey.KeyNotShown({ detail: message }))
