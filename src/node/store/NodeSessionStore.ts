/**
 * `SessionStore` in a directory: a file for each tunnel, written whole or not at all, that only its user can read.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { type Place, SessionStore, SessionStoreError } from "../../tunnel/SessionStore.js"

/** The directory is made when it is first needed. */
export const layer = (directory: string): Layer.Layer<SessionStore> =>
  Layer.succeed(SessionStore, { place: Option.some(placeIn(directory)) })

// internal

const placeIn = (directory: string): Place => {
  const fileOf = (tunnel: string) => Path.join(directory, `session-${encodeURIComponent(tunnel)}.json`)
  const attempt = <A>(operation: "read" | "write", file: string, act: () => A) =>
    Effect.try({ try: act, catch: (cause) => new SessionStoreError({ operation, file, cause }) })
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
    keep: (tunnel, text) => {
      const file = fileOf(tunnel)
      return attempt("write", file, () => {
        Fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
        Fs.writeFileSync(`${file}.new`, text, { mode: 0o600 })
        Fs.renameSync(`${file}.new`, file)
      })
    }
  }
}
