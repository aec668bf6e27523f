/**
 * `SessionStore` in a folder: one file per tunnel, written atomically, readable by its user only.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { SessionStore, SessionStoreError, type Store } from "../../tunnel/SessionStore.js"
import * as Directory from "../file/Directory.js"

/** The folder is created by the first write. */
export const layer = (folder: string): Layer.Layer<SessionStore> =>
  Layer.succeed(SessionStore, { store: Option.some(storeIn(folder)) })

// internal

const storeIn = (folder: string): Store => {
  const fileOf = (tunnel: string) => Path.join(folder, `session-${encodeURIComponent(tunnel)}.json`)
  const attempt = <A>(operation: "read" | "write", file: string, evaluate: () => A) =>
    Effect.try({ try: evaluate, catch: (cause) => new SessionStoreError({ operation, file, cause }) })
  return {
    take: (tunnel) => {
      const file = fileOf(tunnel)
      return attempt("read", file, () => {
        if (!Fs.existsSync(file)) return Option.none()
        const text = Fs.readFileSync(file, "utf8")
        Fs.rmSync(file)
        return Option.some(text)
      })
    },
    put: (tunnel, text) => {
      const file = fileOf(tunnel)
      return attempt("write", file, () => {
        Directory.make(folder)
        Fs.writeFileSync(`${file}.new`, text, { mode: 0o600 })
        Fs.renameSync(`${file}.new`, file)
      })
    }
  }
}
