/**
 * `SessionStore` in a folder: one file per tunnel, written atomically, readable by its user only. A file system that does not
 * answer delays the start or the end of a tunnel by ten seconds.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { SessionStore, SessionStoreError, type Store } from "../../tunnel/SessionStore.js"
import * as RegularFile from "../../core/RegularFile.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as NodeWrittenFile from "../file/NodeWrittenFile.js"

/** The folder is created by the first write. */
export const layer = (folder: string): Layer.Layer<SessionStore> =>
  Layer.succeed(SessionStore, { store: Option.some(storeIn(folder)) })

// internal

const deadline = Duration.seconds(10)

const storeIn = (folder: string): Store => {
  const fileOf = (tunnel: string) => Path.join(folder, `session-${encodeURIComponent(tunnel)}.json`)
  /** Also in a finalizer, where nothing is interruptible. */
  const attempt = <A, E>(operation: "read" | "write", file: string, self: Effect.Effect<A, E>) =>
    Effect.disconnect(Effect.interruptible(self)).pipe(
      Effect.timeoutFail({
        duration: deadline,
        onTimeout: () => new Error(`no answer within ${Duration.format(deadline)}`)
      }),
      Effect.mapError((cause) => new SessionStoreError({ operation, file, cause }))
    )
  return {
    take: (tunnel) => {
      const file = fileOf(tunnel)
      const taken = Effect.zipLeft(
        NodeRegularFile.read(file),
        Effect.tryPromise({ try: () => Fs.promises.rm(file), catch: (cause) => cause })
      )
      return attempt(
        "read",
        file,
        taken.pipe(
          Effect.map((content) => Option.some(RegularFile.text(content))),
          Effect.catchAll((error) =>
            error instanceof RegularFile.RegularFileError
              ? error.reason === "NotFound"
                ? Effect.succeedNone
                : Effect.fail(error.detail)
              : Effect.fail(error)
          )
        )
      )
    },
    put: (tunnel, text) => {
      const file = fileOf(tunnel)
      return attempt(
        "write",
        file,
        Effect.mapError(NodeWrittenFile.write(file, text), ({ detail }) => detail)
      )
    }
  }
}
