/**
 * `SessionStore` in a folder: for each tunnel one file, replaced in one step and readable by its user only, and a lock beside
 * it. A file system that does not answer delays the start or the end of a tunnel by ten seconds, and nothing else.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { type Place, SessionStore, SessionStoreError, type Store } from "../../tunnel/SessionStore.js"
import * as RegularFile from "../../core/RegularFile.js"
import * as SystemReason from "../../core/SystemReason.js"
import * as Directory from "../file/Directory.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"
import * as Sqlite from "./Sqlite.js"

/** The folder is created if it is missing. */
export const layer = (folder: string): Layer.Layer<SessionStore> =>
  Layer.succeed(SessionStore, { store: Option.some(storeIn(folder)) })

// internal

const deadline = Duration.seconds(10)

type Operation = SessionStoreError["operation"]

const storeIn = (folder: string): Store => ({
  open: (tunnel) => {
    const file = Path.join(folder, `session-${encodeURIComponent(tunnel)}.json`)
    return Effect.as(lock(file), placeOf(file))
  }
})

/** By a lock of SQLite, as a master has one: the system ends it with the process. */
const lock = (file: string) =>
  attempt("lock", file, () => Fs.promises.stat(Path.dirname(file)).catch(() => undefined)).pipe(
    // What follows is synchronous: the folder is on a file system that answers.
    Effect.zipRight(
      Effect.try({
        try: () => Directory.make(Path.dirname(file)),
        catch: (cause) => new SessionStoreError({ operation: "lock", file, cause })
      })
    ),
    Effect.zipRight(
      Effect.mapError(
        Sqlite.lock(file.replace(/json$/u, "lock")),
        ({ message }) => new SessionStoreError({ operation: "lock", file, cause: new Error(lockProblem(message)) })
      )
    )
  )

const lockProblem = (message: string): string =>
  /locked|busy/i.test(message) ? "another process keeps its session there" : message

const placeOf = (file: string): Place => {
  /** The last change, which goes on when its caller does not wait any more. */
  let last: Promise<void> = Promise.resolve()
  /** One after the other: an earlier change never overwrites a later one. */
  const change = (act: () => Promise<void>) =>
    Effect.suspend(() => {
      let isGivenUp = false
      const own = attempt("write", file, () => {
        const done = last.then(() => (isGivenUp ? undefined : act()))
        last = done.catch(constVoid)
        return done
      })
      return Effect.tapError(own, () => Effect.sync(() => (isGivenUp = true)))
    })
  return {
    read: Effect.catchAll(NodeRegularFile.read(file, { deadline }), (error) =>
      error.reason === "NotFound"
        ? Effect.succeedNone
        : Effect.fail(new SessionStoreError({ operation: "read", file, cause: new Error(error.detail) }))
    ).pipe(Effect.map((content) => (Option.isOption(content) ? content : Option.some(RegularFile.text(content))))),
    write: (text, { isDurable }) => change(() => replace(file, text, isDurable)),
    remove: change(() => Fs.promises.rm(file, { force: true }))
  }
}

/** Writes a new file beside it and renames that. The name is the same each time: there is one writer, and none is left over. */
const replace = async (file: string, text: string, isDurable: boolean): Promise<void> => {
  const folder = Path.dirname(file)
  const temporary = `${file}.new`
  try {
    await Fs.promises.rm(temporary, { force: true })
    const handle = await Fs.promises.open(temporary, "wx", 0o600)
    try {
      await handle.writeFile(text)
      if (isDurable) await handle.sync()
    } finally {
      await handle.close()
    }
    await Fs.promises.rename(temporary, file)
  } catch (error) {
    await Fs.promises.rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
  if (isDurable) await syncFolder(folder)
}

/** The new name is durable only then. Some systems cannot do it. */
const syncFolder = async (folder: string): Promise<void> => {
  const handle = await Fs.promises.open(folder, "r")
  try {
    await handle.sync()
  } catch (error) {
    if (!["EINVAL", "EISDIR", "EPERM", "EBADF"].includes(SystemReason.codeOf(error) ?? "")) throw error
  } finally {
    await handle.close()
  }
}

/** Also in a finalizer, where nothing is interruptible. */
const attempt = <A>(operation: Operation, file: string, act: () => Promise<A>): Effect.Effect<A, SessionStoreError> =>
  Effect.disconnect(Effect.interruptible(Effect.tryPromise({ try: act, catch: (cause) => cause }))).pipe(
    Effect.timeoutFail({
      duration: deadline,
      onTimeout: () => new Error(`no answer within ${Duration.format(deadline)}`)
    }),
    Effect.mapError((cause) => new SessionStoreError({ operation, file, cause }))
  )
